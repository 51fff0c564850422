package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"portmaster/client"
	"portmaster/handlers/servertest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// agent is a coding agent and its session.
type agent struct {
	*sdk.ClientSession
	session *Session
}

func newAgent(t *testing.T, address string, lease time.Duration) agent {
	t.Helper()
	c, err := client.New(address, client.Options{RetryFor: time.Second})
	must(t, err)
	t.Cleanup(c.Close)
	s := NewSession(c, lease, 0, slog.New(slog.NewTextHandler(io.Discard, nil)))
	here, there := sdk.NewInMemoryTransports()
	_, err = NewServer(s, "test").Connect(t.Context(), there, nil)
	must(t, err)
	session, err := sdk.NewClient(&sdk.Implementation{Name: "agent"}, nil).Connect(t.Context(), here, nil)
	must(t, err)
	t.Cleanup(func() {
		session.Close()
		s.Close(context.Background())
	})
	return agent{session, s}
}

// call calls a tool, and returns what it answers, or the text of its error.
func (a agent) call(t *testing.T, tool string, args, answer any) (refusal string) {
	t.Helper()
	result, err := a.CallTool(t.Context(), &sdk.CallToolParams{Name: tool, Arguments: args})
	must(t, err)
	if result.IsError {
		return result.Content[0].(*sdk.TextContent).Text
	}
	text, err := json.Marshal(result.StructuredContent)
	must(t, errors.Join(err, json.Unmarshal(text, answer)))
	return ""
}

func newServer(t *testing.T) (address string, operator *client.Client) {
	t.Helper()
	address = servertest.Start(t)
	operator, err := client.New(address, client.Options{})
	must(t, err)
	t.Cleanup(operator.Close)
	_, err = operator.Define(t.Context(), client.Definition{Name: "dev", Start: 5000, End: 5002})
	must(t, err)
	return address, operator
}

// Two agents work side by side: each finds what the other has, and what a session holds is free when it ends.
func TestTwoAgents(t *testing.T) {
	address, operator := newServer(t)
	ann, ben := newAgent(t, address, time.Minute), newAgent(t, address, time.Minute)
	var a, b, again held
	ann.call(t, "claim_port", claimArgs{"dev", "ann-web", 5001}, &a)
	ben.call(t, "claim_port", claimArgs{"dev", "ben-web", 5001}, &b)
	ann.call(t, "claim_port", claimArgs{"dev", "ann-web", 0}, &again)
	if a.Port != 5001 || !a.Mine || b.Port == 5001 || b.Port == 0 || again != a {
		t.Errorf("ann has %+v and then %+v, ben has %+v", a, again, b)
	}
	var who held
	ben.call(t, "who_has", whoArgs{Service: "dev", Port: 5001}, &who)
	if who.Name != "ann-web" || who.Mine {
		t.Errorf("5001 is %+v", who)
	}
	var list portList
	ann.call(t, "list_ports", listArgs{}, &list)
	if len(list.Services) != 1 || list.Services[0].Free != 1 || len(list.Services[0].Ports) != 2 {
		t.Errorf("the list is %+v", list)
	}
	for _, p := range list.Services[0].Ports {
		if p.Mine != (p.Name == "ann-web") {
			t.Errorf("for ann the list has %+v", p)
		}
	}
	if refusal := ben.call(t, "release_port", releaseArgs{"dev", "ann-web"}, nil); !strings.Contains(refusal, "this session has no port") {
		t.Errorf("ben releases ann's: %q", refusal)
	}
	var gone released
	if refusal := ann.call(t, "release_port", releaseArgs{"dev", "ann-web"}, &gone); refusal != "" || gone.Released != 5001 {
		t.Errorf("ann releases %+v, %q", gone, refusal)
	}
	must(t, ben.session.Close(t.Context()))
	if s, err := operator.Service(t.Context(), "dev"); err != nil || s.Ports.Free != 3 {
		t.Errorf("when all is over there are %+v, %v", s.Ports, err)
	}
	if refusal := ben.call(t, "claim_port", claimArgs{"dev", "late", 0}, nil); !strings.Contains(refusal, "the session has ended") {
		t.Errorf("after the session: %q", refusal)
	}
	if s, err := operator.Service(t.Context(), "dev"); err != nil || s.Ports.Free != 3 {
		t.Errorf("a late claim is left: %+v, %v", s.Ports, err)
	}
}

// An error says what to do next.
func TestAdvice(t *testing.T) {
	address, _ := newServer(t)
	ann, ben := newAgent(t, address, time.Minute), newAgent(t, address, time.Minute)
	var a held
	for i := range 3 {
		ann.call(t, "claim_port", claimArgs{"dev", fmt.Sprint("ann", i), 0}, &a)
	}
	for _, test := range []struct {
		tool string
		args any
		want string
	}{
		{"claim_port", claimArgs{"none", "x", 0}, "call list_ports"},
		{"claim_port", claimArgs{"dev", "ann1", 0}, "choose another one"},
		{"claim_port", claimArgs{"dev", "ben", 0}, "release ports"},
		{"claim_port", claimArgs{"dev", "a b", 0}, "correct the arguments"},
		{"claim_port", map[string]any{"service": "dev"}, "name"},
		{"who_has", whoArgs{Service: "dev"}, "either a port or a name"},
		{"who_has", whoArgs{Service: "dev", Name: "nobody"}, "nobody has nobody"},
		{"list_ports", listArgs{"none"}, "call list_ports"},
	} {
		if refusal := ben.call(t, test.tool, test.args, &struct{}{}); !strings.Contains(refusal, test.want) {
			t.Errorf("%s %+v: %q, want %q", test.tool, test.args, refusal, test.want)
		}
	}
}

// A service that allows only a shorter lease than the session's gives that.
func TestShorterLease(t *testing.T) {
	address, operator := newServer(t)
	_, err := operator.Change(t.Context(), "dev", client.Change{MaxLease: new(time.Minute)})
	must(t, err)
	ann := newAgent(t, address, time.Hour)
	var a held
	if refusal := ann.call(t, "claim_port", claimArgs{"dev", "ann", 0}, &a); refusal != "" || !a.Mine {
		t.Errorf("ann has %+v, %q", a, refusal)
	}
	if refusal := ann.call(t, "claim_port", claimArgs{"dev", "a b", 0}, &a); !strings.Contains(refusal, "INVALID") {
		t.Errorf("a wrong name: %q", refusal)
	}
}

// Leases are kept while the session lives. A port that an operator released is told as lost, and a new one is claimed.
func TestKept(t *testing.T) {
	address, operator := newServer(t)
	ann := newAgent(t, address, time.Second)
	var a held
	ann.call(t, "claim_port", claimArgs{"dev", "ann", 5000}, &a)
	time.Sleep(2500 * time.Millisecond)
	var who held
	if refusal := ann.call(t, "who_has", whoArgs{Service: "dev", Name: "ann"}, &who); refusal != "" || !who.Mine || who.Port != 5000 {
		t.Fatalf("after two leases ann has %+v, %q", who, refusal)
	}
	must(t, operator.Release(t.Context(), client.Allocation{Service: "dev", Name: "ann"}))
	_, err := operator.Claim(t.Context(), "dev", client.Request{Name: "eve", Port: 5000}, client.Wait{})
	must(t, err)
	var next held
	for range 100 {
		next = held{}
		if ann.call(t, "claim_port", claimArgs{"dev", "ann", 5000}, &next); next.Lost != 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if next.Lost != 5000 || next.Port == 5000 || !next.Mine {
		t.Errorf("then ann has %+v", next)
	}
}

// A thousand calls at once claim each name once, and leave nothing.
func TestManyCalls(t *testing.T) {
	address, operator := newServer(t)
	_, err := operator.Define(t.Context(), client.Definition{Name: "many", Start: 6000, End: 6049})
	must(t, err)
	ann := newAgent(t, address, time.Minute)
	var calls sync.WaitGroup
	for i := range 1000 {
		calls.Go(func() {
			var a held
			name := fmt.Sprint("n", i%20)
			ann.call(t, "claim_port", claimArgs{"many", name, 0}, &a)
			if i%7 == 0 {
				ann.call(t, "release_port", releaseArgs{"many", name}, &released{})
			}
		})
	}
	calls.Wait()
	if s, err := operator.Service(t.Context(), "many"); err != nil || s.Ports.Allocated > 20 {
		t.Errorf("20 names have %+v, %v", s.Ports, err)
	}
	must(t, ann.session.Close(t.Context()))
	if s, err := operator.Service(t.Context(), "many"); err != nil || s.Ports.Free != 50 {
		t.Errorf("when all is over there are %+v, %v", s.Ports, err)
	}
}
