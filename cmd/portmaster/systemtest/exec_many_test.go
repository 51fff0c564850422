package systemtest

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	api "portmaster/client"
)

// execMany starts so many execs of the service ci at once, whose commands bind their port for 100 ms.
func (s *execServer) execMany(count int, flags ...string) (all []*process) {
	s.t.Helper()
	for i := range count {
		args := append(append([]string{"--name", fmt.Sprint("job-", i)}, flags...), "ci", os.Args[0], "100ms")
		all = append(all, s.execChild(fmt.Sprint("exec-", i), "bind", args...))
	}
	return all
}

// Of many execs all run, no two at once on a port: each command binds its own.
func TestExecManyOnFewPorts(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 10)
	all := s.execMany(50)
	for _, p := range all {
		p.ends(0)
		p.says(`^job-\d+ bound`)
	}
	s.allFree()
	if ports, _ := s.counts(); ports.Free != 10 {
		t.Errorf("there are %+v", ports)
	}
}

// Execs on the waitlist run in the order in which they came: their fences grow.
func TestExecKeepsTheOrder(t *testing.T) {
	t.Parallel()
	s := serveExec(t, 1)
	first, err := s.client.Claim(t.Context(), "ci", api.Request{Name: "first"}, api.Wait{})
	if err != nil {
		t.Fatal(err)
	}
	var all []*process
	for i := range 8 {
		all = append(all, s.exec(fmt.Sprint("exec-", i), "ci", "sh", "-c", "echo $PORTMASTER_FENCE"))
		eventually(t, "it waits", func() bool { _, waiting := s.counts(); return waiting == i+1 })
	}
	if err := s.client.Release(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	last := first.Fence
	for _, p := range all {
		p.ends(0)
		fence, err := strconv.ParseInt(regexp.MustCompile(`\d+`).FindString(p.text()), 10, 64)
		if err != nil || fence <= last {
			t.Errorf("%s has the fence %d after %d, %v", p.command.name, fence, last, err)
		}
		last = fence
	}
}
