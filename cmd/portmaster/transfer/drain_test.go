package transfer

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portmaster/client"
)

// draining makes a service that drains: one port in its range, a block across the end of it, and every second port behind.
func draining(t *testing.T, c *client.Client, scattered int) {
	t.Helper()
	_, err := c.Define(t.Context(), client.Definition{Name: "web", Start: 5000, End: 5999})
	must(t, err)
	requests := []client.Request{{Name: "in", Port: 5000}, {Name: "block", Port: 5008, Count: 4}}
	for i := range scattered {
		requests = append(requests, client.Request{Name: fmt.Sprint("s", i), Port: 5020 + 2*i, Lease: 2 * time.Hour})
	}
	_, err = c.ClaimAll(t.Context(), "web", requests, client.Wait{})
	must(t, err)
	end, longest := 5009, time.Hour // what is held already has no lease, or a longer one
	_, err = c.Change(t.Context(), "web", client.Change{End: &end, MaxLease: &longest, Drain: true})
	must(t, err)
}

// wantDraining looks at how a service came out.
func wantDraining(t *testing.T, c *client.Client, want client.PortCounts) {
	t.Helper()
	s, err := c.Service(t.Context(), "web")
	must(t, err)
	if s.Start != 5000 || s.End != 5009 || s.Ranges != nil || s.MaxLease != time.Hour || s.Ports != want {
		t.Errorf("%+v, want ports %+v", s, want)
	}
}

// What drains goes on draining on the other server, also if the ports are more ranges than a service may have; a second import, or one
// that goes on where the first has widened the service, does no more than is left.
func TestDrainingRoundTrip(t *testing.T) {
	for _, scattered := range []int{3, 80} {
		from, to := newClient(t), newClient(t)
		draining(t, from, scattered)
		lines, secrets := export(t, from, "default"), filepath.Join(t.TempDir(), "secrets")
		plan := imports(t, to, secrets, lines)
		if len(plan.Faults) > 0 || len(plan.Claim) != scattered+2 {
			t.Errorf("claimed %d, faults %v", len(plan.Claim), plan.Faults)
		}
		want := client.PortCounts{Total: 12 + scattered, Free: 7, Allocated: scattered + 5, Draining: scattered + 2}
		wantDraining(t, to, want)
		if got := own.ReplaceAllString(export(t, to, "default"), ""); got != own.ReplaceAllString(lines, "") {
			t.Errorf("imported\n%s\nwant\n%s", got, lines)
		}
		again := imports(t, to, secrets, lines)
		if again.Present != scattered+3 || len(again.Define)+len(again.Claim)+len(again.Faults) != 0 {
			t.Errorf("repeated, it is planned %+v", again)
		}

		_, err := to.Define(t.Context(), client.Definition{Name: "web", Start: 5000, End: 5999, MaxLease: time.Hour})
		must(t, err)
		must(t, to.Release(t.Context(), client.Allocation{Service: "web", Name: "s1"}))
		plan = imports(t, to, secrets, lines)
		if len(plan.Faults) > 0 || len(plan.Define) != 1 || len(plan.Claim) != 1 {
			t.Errorf("goes on with %+v", plan)
		}
		wantDraining(t, to, want)

		must(t, to.Release(t.Context(), client.Allocation{Service: "web", Name: "s1"}))
		parsed, err := Parse(strings.NewReader(lines))
		must(t, err)
		if plan, err = MakePlan(t.Context(), to, parsed[1:]); err != nil || len(plan.Faults) != 1 {
			t.Errorf("a file that does not say that the service drains: faults %v, error %v", plan.Faults, err)
		}
	}
}

// What cannot be taken over is said for each allocation; without "draining" in the file, a port outside is a mistake.
func TestDrainingFaults(t *testing.T) {
	const line = `{"service":{"name":"web","start":5000,"end":5009%s}}
{"allocation":{"service":"web","name":"a","port":5020}}
{"allocation":{"service":"web","name":"b","port":5039,"count":2}}
{"service":{"name":"db","start":5040,"end":5049}}
`
	for draining, want := range map[string]string{
		"":                 "[line 2: default/web a: port 5020 is not in 5000-5009 line 3: default/web b: port 5039 is not in 5000-5009]",
		`,"draining":true`: "[line 3: default/web b: it drains outside of the ranges of its service, and db has port 5039 or one behind it]",
	} {
		parsed, err := Parse(strings.NewReader(fmt.Sprintf(line, draining)))
		must(t, err)
		plan, err := MakePlan(t.Context(), newClient(t), parsed)
		must(t, err)
		if got := fmt.Sprint(plan.Faults); got != want {
			t.Errorf("faults %s, want %s", got, want)
		}
	}

	// 40 holders, between which another service has ports.
	var lines strings.Builder
	fmt.Fprintln(&lines, `{"service":{"name":"web","start":5000,"end":5009,"draining":true}}`)
	var others []string
	for i := range 40 {
		fmt.Fprintf(&lines, `{"allocation":{"service":"web","name":"n%d","port":%d}}`+"\n", i, 5020+3*i)
		others = append(others, fmt.Sprintf(`{"start":%d,"end":%[1]d}`, 5021+3*i))
	}
	for i, ranges := range [][]string{others[:20], others[20:]} {
		first, last := 5021+60*i, 5078+60*i
		fmt.Fprintf(&lines, `{"service":{"name":"o%d","start":%d,"end":%d,"ranges":[%s]}}`+"\n", i, first, last, strings.Join(ranges, ","))
	}
	parsed, err := Parse(strings.NewReader(lines.String()))
	must(t, err)
	plan, err := MakePlan(t.Context(), newClient(t), parsed)
	must(t, err)
	if len(plan.Faults) != 40 || len(plan.Claim) != 0 || !strings.Contains(plan.Faults[0].Detail, "40 ranges") {
		t.Errorf("claimed %d, faults %v", len(plan.Claim), plan.Faults)
	}
}
