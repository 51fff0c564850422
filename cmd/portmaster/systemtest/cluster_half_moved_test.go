//go:build faults

package systemtest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestClusterHalfMovedSlot calls every script in a pool whose slot stands half on one master and half on another. Redis
// refuses there a script with a key that it does not see. Such a call waits, and when its time is over it is answered that
// nothing was done; when the slot has moved before that, it succeeds.
func TestClusterHalfMovedSlot(t *testing.T) {
	t.Parallel()
	const (
		keyed   = 12 // the requests of a set that need the service's key, or one that is not there: all but the list of pools and an accept
		lacking = 12 // those of them that need one which is not there: all do, since nothing here is leased or labelled and nobody waits
	)
	c := startCluster(t, 3)
	s := c.shardOf(0)
	to := c.shardOf(slots - 1).master
	pool := c.poolsIn(s.from, s.to, 1)[0]
	hasty := startPortmaster(t, "hasty", "PORTMASTER_REDIS_URL="+c.url(), "PORTMASTER_REDIS_TIMEOUT=1s")
	patient := startPortmaster(t, "patient", "PORTMASTER_REDIS_URL="+c.url(), "PORTMASTER_REDIS_TIMEOUT=1m")
	hasty.awaitReady()
	patient.awaitReady()
	define(t, hasty.url, service{pool, "web"}, 5000, 5099)
	var sets [][]routed
	for n := range 4 {
		sets = append(sets, prepare(t, hasty.url, pool, n))
	}

	m := c.beginMove(c.slotOf(pool), s.master, to)
	refused := sendAll(t, hasty.url, "no key has moved", sets[0], lacking)
	m.migrate(slices.DeleteFunc(m.keys(1000), func(key string) bool { return !strings.Contains(key, ":service") }))
	refused = append(refused, sendAll(t, hasty.url, "the services have moved", sets[1], keyed)...)

	before := s.master.refusals("TRYAGAIN") + to.refusals("TRYAGAIN")
	var waits sync.WaitGroup
	defer waits.Wait()
	waits.Go(func() { sendAll(t, patient.url, "the services have moved, and soon all", sets[2], 0) })
	eventually(t, "Redis refuses what waits", func() bool {
		return s.master.refusals("TRYAGAIN")+to.refusals("TRYAGAIN") > before+100
	})
	m.migrate(m.keys(1000))
	refused = append(refused, sendAll(t, hasty.url, "all keys have moved, and the slot has not", sets[3], lacking)...)
	m.end()
	waits.Wait()

	sendAll(t, hasty.url, "the slot has moved: what was refused", refused, 0)
	want := portCounts{Total: 100, Free: 84, Offered: 8, Allocated: 8}
	if held, _ := readCounts(hasty.url, service{pool, "web"}); held != want {
		t.Errorf("in the end the service counts %+v, want %+v", held, want)
	}
}

// prepare makes what the nth requests of all scripts are about, and returns those: in whichever order they are made, and
// whoever else makes them, each gets the answer that it wants if it is done once. They leave two ports allocated, and two on
// offer.
func prepare(t *testing.T, server, pool string, n int) []routed {
	t.Helper()
	services := "/v1/pools/" + pool + "/services"
	web := services + "/web"
	drawn := uuid.NewString
	accepted, rejected, released, held, open := drawn(), drawn(), drawn(), drawn(), drawn()
	for _, r := range []routed{
		{"POST", services, fmt.Sprintf(`{"name":"empty-%d","start":%d,"end":%[2]d}`, n, 6000+n), 201},
		{"POST", web + "/offers", fmt.Sprintf(`{"name":"accepted-%d","secret":%q}`, n, accepted), 201},
		{"POST", web + "/offers", fmt.Sprintf(`{"name":"rejected-%d","secret":%q}`, n, rejected), 201},
		{"POST", web + "/offers", fmt.Sprintf(`{"name":"released-%d","secret":%q}`, n, released), 201},
		{"POST", web + "/offers", fmt.Sprintf(`{"name":"held-%d","secret":%q}`, n, held), 201},
		{"POST", web + "/offers", fmt.Sprintf(`{"name":"open-%d","secret":%q}`, n, open), 201},
		{"POST", web + "/offers/" + released + "/accept", "", 201},
		{"POST", web + "/offers/" + held + "/accept", "", 201},
	} {
		if status, code := r.send(server); status != r.want {
			t.Fatalf("%s %s is answered with %d %s, want %d", r.method, r.path, status, code, r.want)
		}
	}
	return []routed{
		{"POST", services, fmt.Sprintf(`{"name":"new-%d","start":%d,"end":%[2]d}`, n, 7000+n), 201},
		{"PUT", web, `{"start":5000,"end":5099}`, 200},
		{"DELETE", fmt.Sprintf("%s/empty-%d", services, n), "", 204},
		{"POST", web + "/offers", fmt.Sprintf(`{"name":"offered-%d"}`, n), 201},
		{"POST", web + "/offers/" + accepted + "/accept", "", 201},
		{"POST", web + "/offers/" + rejected + "/reject", "", 204},
		{"DELETE", fmt.Sprintf("%s/ports/released-%d", web, n), "", 204},
		{"GET", web, "", 200},
		{"GET", web + "/offers/" + open, "", 200},
		{"GET", fmt.Sprintf("%s/ports/held-%d", web, n), "", 200},
		{"GET", services, "", 200},
		{"GET", web + "/offers", "", 200},
		{"GET", web + "/ports", "", 200},
		{"GET", "/v1/pools", "", 200},
	}
}

// sendAll makes requests at the same time, and returns those that were answered that nothing was done: so many should be. Any
// other answer but the wanted one is an error.
func sendAll(t *testing.T, server, when string, requests []routed, want int) (refused []routed) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for _, r := range requests {
		all.Go(func() {
			status, code := r.send(server)
			if status == http.StatusServiceUnavailable && code == "UNAVAILABLE" {
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, r)
			} else if status != r.want {
				t.Errorf("%s: %s %s is answered with %d %s, want %d", when, r.method, r.path, status, code, r.want)
			}
		})
	}
	all.Wait()
	t.Logf("%s: %d requests succeeded, %d were answered with 503, in %s",
		when, len(requests)-len(refused), len(refused), time.Since(began).Round(time.Millisecond))
	if len(refused) != want {
		t.Errorf("%s: these were answered with 503, want %d: %v", when, want, refused)
	}
	return refused
}
