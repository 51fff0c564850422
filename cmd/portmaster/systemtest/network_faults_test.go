//go:build faults

package systemtest

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// TestNetworkFaults loses replies and requests, and resets connections, between the clients and the servers, between the
// servers and Redis, and both. No port may be given twice, and a call that is repeated gets the same answer.
func TestNetworkFaults(t *testing.T) {
	toxics.Register("snip", new(snip))
	for _, test := range []struct {
		name               string
		atClients, atRedis bool
	}{
		{"between client and server", true, false},
		{"between server and Redis", false, true},
		{"both", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			const calls = 20_000
			s := newScenario(t)
			addr := s.node.addr
			if test.atRedis {
				addr = startProxy(t, addr)
			}
			s.startReplicas(addr)
			servers := urls(s.replicas)
			if test.atClients {
				for i, url := range servers {
					servers[i] = "http://" + startProxy(t, strings.TrimPrefix(url, "http://"))
				}
			}
			s.startLoad(servers, 32, 5*time.Millisecond)
			eventually(t, "the clients have called often", func() bool { return s.ledger.size() >= calls })
			figures := s.end(rules{network: test.atClients})
			t.Logf("%.1f %% of the calls were cut off", 100*float64(figures.unknown+figures.unavailable)/float64(figures.calls))
			if figures.unknown < calls/50 {
				t.Errorf("of %d calls only %d were cut off", figures.calls, figures.unknown)
			}
		})
	}
}

// startProxy starts a proxy that cuts off one of twenty requests and one of twenty replies. It returns its address.
func startProxy(t *testing.T, to string) string {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "proxy to "+to, freeAddr(t), to)
	for _, toxic := range []string{
		`{"type": "snip", "stream": "upstream", "attributes": {"rate": 0.05}}`,
		`{"type": "snip", "stream": "downstream", "attributes": {"rate": 0.05}}`,
		`{"type": "reset_peer", "toxicity": 0}`, // never works by itself, and has connections closed by a reset
	} {
		if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	return proxy.Listen
}

// snip is a toxic that now and then cuts off what passes, before it or in the midst of it, and ends the connection. What
// passes at once is a request of HTTP or its reply, and of Redis those of all the calls that a server sent together.
type snip struct {
	Rate float64 `json:"rate"`
}

// Pipe is called by toxiproxy for each direction of each connection.
func (s *snip) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			if rand.Float64() >= s.Rate {
				stub.Output <- chunk
				continue
			}
			if kept := rand.IntN(2*len(chunk.Data)) - len(chunk.Data); kept > 0 {
				stub.Output <- &stream.StreamChunk{Data: chunk.Data[:kept], Timestamp: chunk.Timestamp}
			}
			stub.Close()
			for range stub.Input { // until the connection is closed
			}
			return
		}
	}
}
