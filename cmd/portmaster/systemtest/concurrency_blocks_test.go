//go:build !faults

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestManyClientsOfBlocks lets clients on three servers fight over blocks of 2 to 4 ports and over single ones. Some wait for
// longer blocks, which the pieces that are free seldom have, and some ask for more than there is. No port may have two holders at a
// time, and in the end all ports are free again, and in one piece.
func TestManyClientsOfBlocks(t *testing.T) {
	const (
		clients, calls = 24, 6_000
		ports          = 40
		seed           = 2
	)
	r := startReplicas(t, 3, 21000, ports)
	var made atomic.Int64
	var mu sync.Mutex
	var holds []hold
	seen := outcomes{}
	var all sync.WaitGroup
	for id := range clients {
		all.Go(func() {
			b := &builder{replicas: r, id: id, random: rand.New(rand.NewPCG(seed, uint64(id))), seen: outcomes{}}
			for n := made.Add(1); n <= calls && !t.Failed(); n = made.Add(1) {
				b.linesUp = n/300%3 == 2
				b.act()
			}
			mu.Lock()
			defer mu.Unlock()
			holds = append(holds, b.holds...)
			for what, n := range b.seen {
				seen[what] += n
			}
		})
	}
	all.Wait()
	seen.log(t)
	seen.need(t, `
		1 port 201
		2 ports 201
		3 ports 201
		4 ports 201
		4 ports EXHAUSTED
		4 ports in line 201
		many in line 201
		many in line EXHAUSTED
		too many INVALID
		too many in line INVALID
		certain ports 201
		certain ports PORT_TAKEN
		lease 201`)
	checkHeldByOne(t, holds)
	for port := range byPort(holds) {
		if port < r.first || port >= r.first+ports {
			t.Errorf("port %d is out of the range", port)
		}
	}
	var last time.Time
	for _, h := range holds {
		if h.until.After(last) {
			last = h.until
		}
	}
	time.Sleep(time.Until(last)) // the last leases
	r.awaitNobodyInLine()
	whole := r.must(201, 1, request{method: "POST", path: "/ports", body: fmt.Sprintf(`{"name":"all","count":%d}`, ports)})
	if whole.Port != r.first || whole.Count != ports {
		t.Errorf("the whole range is %+v", whole.held)
	}
	r.must(204, 2, request{method: "DELETE", path: fmt.Sprintf("/ports/%d", r.first+ports-1), secret: whole.Secret})
	r.checkNothingHeld()
}

// builder is a client who wants ports in a row, for a moment.
type builder struct {
	*replicas
	id      int
	random  *rand.Rand
	linesUp bool // nobody passes who waits for a block, so clients wait in line only at times
	made    int
	seen    outcomes
	holds   []hold
}

// act claims ports, and gives them back after a moment; or it leaves a lease to run out.
func (b *builder) act() {
	count := 1 + b.random.IntN(4)
	what, query, more := fmt.Sprintf("%d ports", count), "", ""
	if count == 1 {
		what = "1 port"
	}
	leased := false
	inLine := fmt.Sprintf("?wait=%dms", 50+b.random.IntN(200))
	switch kind := b.random.IntN(12); {
	case b.random.IntN(12) == 0: // beyond the range, as a block or as a list
		b.askTooMuch(inLine)
		return
	case b.linesUp && kind == 0:
		count = 5 + b.random.IntN(6)
		what, query = "many in line", fmt.Sprintf("?wait=%dms", 5+b.random.IntN(60))
	case b.linesUp && kind < 6:
		what += " in line"
		query = inLine
	case kind < 9:
	case kind < 11:
		what = "certain ports"
		more = fmt.Sprintf(`,"port":%d`, b.first+b.random.IntN(b.ports-count+1))
	case b.random.IntN(10) == 0:
		what, more, leased = "lease", `,"lease":1`, true
	}
	name, secret := fmt.Sprintf("%d-%d", b.id, b.made), uuid.NewString()
	b.made++
	got := b.send(b.t.Context(), b.random.IntN(len(b.servers)), request{
		method: "POST", path: "/ports" + query,
		body: fmt.Sprintf(`{"name":%q,"secret":%q,"count":%d%s}`, name, secret, count, more),
	})
	b.seen[what+" "+got.code]++
	if got.status != 201 {
		if !slices.Contains([]string{"EXHAUSTED", "PORT_TAKEN"}, got.code) {
			b.t.Errorf("%s: %s %s", what, got.code, got.detail)
		}
		return
	}
	h := hold{port: got.Port, count: got.size(), fence: got.Fence, from: got.Created, until: got.Expires}
	if h.count != count || leased == h.until.IsZero() {
		b.t.Errorf("%d ports are %+v", count, got.held)
	}
	if !leased {
		time.Sleep(time.Duration(b.random.IntN(10)) * time.Millisecond)
		h.until = time.Now()
		anyOfThem := h.port + b.random.IntN(count)
		b.expect(204, b.random.IntN(len(b.servers)), request{method: "DELETE", path: fmt.Sprintf("/ports/%d", anyOfThem), secret: secret})
	}
	b.holds = append(b.holds, h)
}

// askTooMuch asks for more than the range has, as a block or as a list: that is refused at once, and nobody waits for it.
func (b *builder) askTooMuch(inLine string) {
	what, query := "too many", ""
	if b.random.IntN(2) == 0 {
		what, query = "too many in line", inLine
	}
	body, field := fmt.Sprintf(`{"name":"too-many-%d","count":%d}`, b.id, b.ports+1+b.random.IntN(20)), "count"
	if b.random.IntN(2) == 0 {
		body, field = fmt.Sprintf(`[{"name":"a-%d","count":%d},{"name":"b-%d","count":21}]`, b.id, b.ports-20, b.id), "body"
	}
	got := b.send(b.t.Context(), b.random.IntN(len(b.servers)), request{method: "POST", path: "/ports" + query, body: body})
	b.seen[what+" "+got.code]++
	if got.code != "INVALID" || !slices.Equal(got.at, []string{field}) {
		b.t.Errorf("%s: %s at %q (%s)", body, got.code, got.at, got.detail)
	}
}
