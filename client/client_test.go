package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"portmaster/client"
)

// transcript makes every call, of which some fail, and returns a line for each: what it got, without times, fences and secrets.
func transcript(ctx context.Context, c *client.Client, n int) (lines []string) {
	say := func(what any, err error) {
		failed := &client.Error{}
		errors.As(err, &failed)
		text, _ := json.Marshal(what)
		lines = append(lines, fmt.Sprintf("%s %s %v", varying.ReplaceAll(text, nil), failed.Code, failed.Fields))
	}
	service, names := fmt.Sprintf("s%d", n), func(i int) string { return fmt.Sprintf("holder-%d-%d", n, i) }
	d := client.Definition{Name: service, Description: "<&> \u2028", Start: 10000 + 10*n, End: 10009 + 10*n, Cooldown: time.Millisecond}
	say(c.Define(ctx, d))
	d.End--
	say(c.Define(ctx, d))
	say(c.Service(ctx, service))
	say(c.Define(ctx, client.Definition{Name: service, Start: 1, End: 70000}))

	say(c.FreePorts(ctx, service, 2))
	for w, err := range c.Waiting(ctx, service) {
		say(w, err) // nobody does
	}
	offer, err := c.Offer(ctx, service, client.Request{Name: names(1), Lease: time.Hour, Labels: map[string]string{"job": "<1>"}}, client.Wait{})
	say(offer, err)
	say(c.OpenOffer(ctx, service, offer.Secret))
	taken, err := c.Accept(ctx, service, offer.Secret, 0)
	say(taken, err)
	say(c.Accept(ctx, service, client.NewSecret(), time.Minute))
	say(c.Renew(ctx, taken, 2*time.Hour))
	say(c.ChangeLabels(ctx, taken, map[string]*string{"job": nil, "gone": nil}))
	other := taken
	other.Secret = client.NewSecret()
	say(c.Renew(ctx, other, 0))
	say(nil, c.Release(ctx, other))
	say(c.Allocation(ctx, service, names(1)))
	say(nil, c.Remove(ctx, service))
	say(nil, c.Release(ctx, taken))
	say(c.Allocation(ctx, service, names(1)))

	offers, err := c.OfferAll(ctx, service, []client.Request{{Name: names(2), Count: 3}, {Name: names(3), Prefer: d.Start}}, client.Wait{})
	say(offers, err)
	for o, err := range c.Offers(ctx, service) {
		say(o, err)
	}
	for i, o := range offers {
		say(nil, c.Reject(ctx, service, o.Secret, i > 0))
	}
	say(c.Claim(ctx, service, client.Request{Name: names(4), Port: 1024}, client.Wait{}))
	say(c.Claim(ctx, service, client.Request{Name: names(4), Count: 9}, client.Wait{}))
	all, err := c.ClaimAll(ctx, service, []client.Request{{Name: names(5)}, {Name: names(6), Lease: time.Minute}}, client.Wait{})
	say(all, err)
	say(c.ClaimAll(ctx, service, []client.Request{{Name: names(5)}, {Name: names(7)}}, client.Wait{}))
	existing, err := c.Claim(ctx, service, client.Request{Name: names(5), Lease: time.Hour, Existing: true}, client.Wait{})
	say(fmt.Sprint(existing.Existed, existing.Secret, existing.Lease), err)
	say(c.Offer(ctx, service, client.Request{Name: names(5), Existing: true}, client.Wait{}))
	for a, err := range c.Allocations(ctx, service) {
		say(a, err)
		say(nil, c.ReleaseInUse(ctx, client.Allocation{Service: service, Port: a.Port, Fence: a.Fence}))
	}
	resting, err := c.Service(ctx, service)
	say(resting.Ports, err)
	say(nil, c.Remove(ctx, service))
	say(c.Service(ctx, service))
	return lines
}

func TestCalls(t *testing.T) {
	t.Parallel()
	c := ownServer(t, client.Options{}).Pool("host-1")
	got := strings.Join(transcript(t.Context(), c, 0), "\n")
	if want := strings.TrimSpace(calls); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for pool, err := range c.Pools(t.Context()) {
		t.Error(pool, err)
	}
	define(t, c, "ci", 2000, 2001)
	if p := slices.Collect(maps.Keys(maps.Collect(c.Pools(t.Context())))); len(p) != 1 || p[0].Name != "host-1" || *p[0].Services != 1 {
		t.Errorf("%+v", p)
	}
	for err, sentinel := range map[error]error{
		c.Remove(t.Context(), "nothing"):                                     client.ErrServiceNotFound,
		c.Reject(t.Context(), "ci", client.NewSecret(), false):               client.ErrOfferNotFound,
		c.Pool("other").Remove(t.Context(), "ci"):                            client.ErrServiceNotFound,
		c.Release(t.Context(), client.Allocation{Service: "ci", Port: 2000}): client.ErrPortNotFound,
	} {
		if failed := new(client.Error); !errors.Is(err, sentinel) || errors.Is(err, client.ErrExhausted) || !errors.As(err, &failed) ||
			failed.Status != 404 || failed.RequestID == "" || failed.Detail == "" {
			t.Errorf("%v is not %v", err, sentinel)
		}
	}
}

// There is a variable for each code that the API describes, and for no other.
func TestErrorsAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../handlers/openapi.yaml")
	must(t, err)
	source, err := os.ReadFile("errors.go")
	must(t, err)
	_, problem, _ := strings.Cut(string(document), "    Problem:\n")
	problem, _, _ = strings.Cut(problem, "request_id:")
	described := regexp.MustCompile(`(?m)^ +- ([A-Z_]+)$`).FindAllStringSubmatch(problem, -1)
	for _, code := range described {
		if !strings.Contains(string(source), `&Error{Code: "`+code[1]+`"}`) {
			t.Errorf("there is no variable for %s", code[1])
		}
	}
	if variables := strings.Count(string(source), "= &Error{Code: \""); variables != len(described) || variables < 20 {
		t.Errorf("%d variables for %d codes", variables, len(described))
	}
}

// varying finds what no two runs have in common.
var varying = regexp.MustCompile(`,"(created|expires|fence|secret)":("[^"]*"|[0-9]+)`)

// calls is what the transcript of number 0 says.
const calls = `
{"name":"s0","pool":"host-1","description":"\u003c\u0026\u003e \u2028","start":10000,"end":10009,"ports":{"total":10,"free":10,"offered":0,"allocated":0,"cooling":0},"waiting":0,"cooldown":0.001}  []
{"name":"s0","pool":"host-1","description":"\u003c\u0026\u003e \u2028","start":10000,"end":10008,"ports":{"total":9,"free":9,"offered":0,"allocated":0,"cooling":0},"waiting":0,"cooldown":0.001}  []
{"name":"s0","pool":"host-1","description":"\u003c\u0026\u003e \u2028","start":10000,"end":10008,"ports":{"total":9,"free":9,"offered":0,"allocated":0,"cooling":0},"waiting":0,"cooldown":0.001}  []
{"name":"","description":"","start":0,"end":0,"ports":{"total":0,"free":0,"offered":0,"allocated":0,"cooling":0},"waiting":0,"cooldown":0} INVALID [{start must be within 1024-49151} {end must be within 1024-49151}]
[10000,10001]  []
{"pool":"host-1","service":"s0","name":"holder-0-1","port":10000,"labels":{"job":"\u003c1\u003e"},"lease":3600}  []
{"pool":"host-1","service":"s0","name":"holder-0-1","port":10000,"labels":{"job":"\u003c1\u003e"},"lease":3600}  []
{"pool":"host-1","service":"s0","name":"holder-0-1","port":10000,"labels":{"job":"\u003c1\u003e"}}  []
{"service":"","name":"","port":0} OFFER_NOT_FOUND []
{"pool":"host-1","service":"s0","name":"holder-0-1","port":10000,"labels":{"job":"\u003c1\u003e"}}  []
{"pool":"host-1","service":"s0","name":"holder-0-1","port":10000}  []
{"service":"","name":"","port":0} SECRET_MISMATCH []
null SECRET_MISMATCH []
{"pool":"host-1","service":"s0","name":"holder-0-1","port":10000}  []
null SERVICE_IN_USE []
null  []
{"service":"","name":"","port":0} PORT_NOT_FOUND []
[{"pool":"host-1","service":"s0","name":"holder-0-2","port":10001,"count":3},{"pool":"host-1","service":"s0","name":"holder-0-3","port":10000}]  []
{"pool":"host-1","service":"s0","name":"holder-0-3","port":10000}  []
{"pool":"host-1","service":"s0","name":"holder-0-2","port":10001,"count":3}  []
null  []
null  []
{"service":"","name":"","port":0} INVALID [{port must be within the range 10000-10008}]
{"service":"","name":"","port":0} EXHAUSTED []
[{"pool":"host-1","service":"s0","name":"holder-0-5","port":10001},{"pool":"host-1","service":"s0","name":"holder-0-6","port":10002}]  []
null NAME_TAKEN [{[0].name holder-0-5 has port 10001}]
"true0s"  []
{"service":"","name":"","port":0} INVALID [{existing is only for a claim: an allocation cannot be offered}]
{"pool":"host-1","service":"s0","name":"holder-0-5","port":10001}  []
null  []
{"pool":"host-1","service":"s0","name":"holder-0-6","port":10002}  []
null  []
{"total":9,"free":6,"offered":0,"allocated":0,"cooling":3}  []
null  []
{"name":"","description":"","start":0,"end":0,"ports":{"total":0,"free":0,"offered":0,"allocated":0,"cooling":0},"waiting":0,"cooldown":0} SERVICE_NOT_FOUND []
`
