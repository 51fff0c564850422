package client_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/client"
)

// Every call answers as if nothing had happened, whichever of its attempts fail, and in whatever way.
func TestEachFirstAttemptFails(t *testing.T) {
	t.Parallel()
	for bad := isRefused; bad < fates; bad++ {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			t.Parallel()
			var odd atomic.Bool
			c, p := startProxy(t, client.Options{Timeout: 200 * time.Millisecond}, func(*http.Request) fate {
				if odd.Store(!odd.Load()); odd.Load() {
					return bad
				}
				return passes
			})
			got := strings.Join(transcript(t.Context(), c.Pool("host-1"), 0), "\n")
			if want := strings.TrimSpace(calls); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if requests := p.requests.Load(); requests < 50 {
				t.Errorf("%d requests: no call was repeated", requests)
			}
		})
	}
}

// Of the answers 5 % are lost, while many clients take turns: no port has two holders, nothing stays behind, and no connection or
// goroutine does.
func TestAnswersGetLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	c, p := startProxy(t, client.Options{Timeout: 2 * time.Second}, func(*http.Request) fate {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(100) < 5 {
			return isRefused + fate(random.IntN(int(answerStalls-isRefused)))
		}
		return passes
	})
	const clients, cycles = 8, 40
	define(t, c, "ci", 30000, 30000+clients-1)
	var held [1 << 16]atomic.Bool
	take := func(port int) {
		if held[port].Swap(true) {
			t.Errorf("port %d has two holders", port)
		}
	}
	cycle := func(n, i int) (err error) {
		r := client.Request{Name: fmt.Sprintf("holder-%d", n), Lease: time.Hour}
		var a client.Allocation
		if i%2 == 0 {
			a, err = c.Claim(t.Context(), "ci", r, client.Wait{})
		} else if o, failed := c.Offer(t.Context(), "ci", r, client.Wait{}); failed != nil {
			err = failed
		} else {
			a, err = c.Accept(t.Context(), "ci", o.Secret, 0)
		}
		if err != nil {
			return err
		}
		take(a.Port)
		if a, err = c.Renew(t.Context(), a, 0); err != nil {
			return err
		}
		if i%3 == 0 {
			a.Secret = "" // the fence is proof as well
		}
		held[a.Port].Store(false) // from the release on somebody else may have it
		return c.Release(t.Context(), a)
	}
	var running sync.WaitGroup
	for n := range clients {
		running.Go(func() {
			for i := range cycles {
				if err := cycle(n, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	p.set(func(*http.Request) fate { return passes })
	if ports := counts(t, c, "ci"); ports.Free != clients {
		t.Errorf("something stays behind: %+v", ports)
	}
	if requests := p.requests.Load(); requests < clients*cycles*3+20 {
		t.Errorf("%d requests: nothing was repeated", requests)
	}
	c.Close()
	soon(t, "no connection is open", func() bool { return p.open.Load() == 0 })
	p.back.CloseIdleConnections()
	noneIsLeft(t)
}

// noneIsLeft waits until there are no goroutines of a Client.
func noneIsLeft(t *testing.T) {
	t.Helper()
	soon(t, "no goroutine is left", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !bytes.Contains(stacks, []byte("portmaster/client.(")) && !bytes.Contains(stacks, []byte("net/http.(*persistConn)"))
	})
}
