package allocator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"portmaster/allocator/storetest"
	"portmaster/lua"
)

// slowNetwork returns a client of a store to which each way takes as long as it is told.
func slowNetwork(t *testing.T, store storetest.Store, delay time.Duration) *redis.Client {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "slow", "127.0.0.1:0", store.Addr)
	for _, way := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"type": "latency", "stream": %q, "attributes": {"latency": %d}}`, way, delay.Milliseconds())
		_, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic))
		must(t, err)
	}
	must(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	options := store.Options()
	options.Addr = proxy.Listen
	if options.TLSConfig != nil {
		t.Skip("the proxy is no host of the certificate")
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

// tripsOf counts the pipelines that list or read services.
type tripsOf struct{ atomic.Int64 }

func (trips *tripsOf) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		if slices.ContainsFunc(commands, func(c redis.Cmder) bool {
			return slices.ContainsFunc(c.Args(), func(arg any) bool { return arg == lua.ListServices.Hash || arg == lua.ReadServices.Hash })
		}) {
			trips.Add(1)
		}
		return next(ctx, commands)
	}
}

func (*tripsOf) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (*tripsOf) DialHook(next redis.DialHook) redis.DialHook          { return next }

// 2,000 services on a slow network, while others call: one trip for each service would take two minutes.
func TestManyServicesOnASlowNetwork(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		const services, timeout, delay = 2_000, 10 * time.Second, 30 * time.Millisecond
		near := newAllocator(store, long)
		defineMany(t, near, DefaultPool, services)
		offer := mustOffer(t, near, "s7", "ann")

		options := near.opts
		options.Timeout = timeout
		client, trips := slowNetwork(t, store, delay), new(tripsOf)
		client.AddHook(trips)
		a := New(client, options)
		ctx, end := context.WithCancel(t.Context())
		calls := make(chan int)
		for range 4 {
			go func() {
				n := 0
				for ; ctx.Err() == nil; n++ {
					_, _ = a.OpenOffer(ctx, Caller{}, DefaultPool, "s7", offer.Secret)
				}
				calls <- n
			}()
		}
		names := pages(t, MaxPage, func(cursor string) (items []string, next string, err error) {
			page, next, err := a.Services(t.Context(), DefaultPool, cursor, MaxPage)
			for _, s := range page {
				items = append(items, s.Name)
			}
			return items, next, err
		})
		if n := strings.Count(names, ",") + 1; n != services {
			t.Errorf("%d services are listed, want %d", n, services)
		}
		figures, unread, err := a.AllFigures(t.Context())
		if err != nil || unread > 0 || len(figures) != services {
			t.Errorf("figures of %d services, %d pools unread, %v", len(figures), unread, err)
		}
		if want := (Figures{Pool: DefaultPool, Service: "s7", Ports: PortCounts{Total: 2, Free: 1, Offered: 1}}); !slices.Contains(figures, want) {
			t.Errorf("the figures lack %+v", want)
		}
		end()
		n := <-calls + <-calls + <-calls + <-calls
		t.Logf("%d services were listed and read in %d trips, beside %d calls", services, trips.Load(), n)
		if trips := trips.Load(); trips < 2 || trips > 60 { // it is some 40; a script a trip would be 130
			t.Errorf("it took %d trips", trips)
		}
	})
}

// defineMany defines services s0, s1, ... of two ports each.
func defineMany(t *testing.T, a *Allocator, pool string, n int) {
	t.Helper()
	errs := make(chan error, n)
	for client := range 16 {
		go func() {
			for i := client; i < n; i += 16 {
				_, err := a.Create(t.Context(), Caller{}, pool, Definition{Name: fmt.Sprint("s", i), Start: 2000 + 2*i, End: 2001 + 2*i})
				errs <- err
			}
		}()
	}
	for range n {
		must(t, <-errs)
	}
}

// Where some could not be read, the page ends before them; it is an error where none could.
func TestPageEndsWhereServicesCannotBeRead(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	defineMany(t, a, DefaultPool, 3*servicesPerScript)
	broken := a.keys.Pool(DefaultPool).Service(fmt.Sprint("s", servicesPerScript+3))
	must(t, store.Admin.Rename(t.Context(), broken, "aside").Err())
	must(t, store.Admin.Set(t.Context(), broken, "not a hash", 0).Err())
	page, next, err := a.Services(t.Context(), DefaultPool, "", MaxPage)
	if err != nil || len(page) != servicesPerScript || next != fmt.Sprint(page[servicesPerScript-1].Start+1) {
		t.Errorf("%d services, next %q, %v", len(page), next, err)
	}
	if page, next, err := a.Services(t.Context(), DefaultPool, next, MaxPage); err == nil {
		t.Errorf("%d services, next %q, and no error", len(page), next)
	}
	if figures, unread, err := a.AllFigures(t.Context()); err != nil || unread != 1 || len(figures) != 2*servicesPerScript {
		t.Errorf("figures of %d services, %d pools unread, %v", len(figures), unread, err)
	}
	must(t, store.Admin.Rename(t.Context(), "aside", broken).Err())
	rest, next, err := a.Services(t.Context(), DefaultPool, next, MaxPage)
	if err != nil || len(rest) != 2*servicesPerScript || next != "" {
		t.Errorf("the rest: %d services, next %q, %v", len(rest), next, err)
	}
}

// A reading of all services stands for other servers, unless something is missing in it.
func TestFiguresAreShared(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a, b := newAllocator(store, long), newAllocator(store, long)
		read := func(of *Allocator, services int) (free int) {
			t.Helper()
			figures, unread, err := of.AllFigures(t.Context())
			if err != nil || unread != 0 || len(figures) != services {
				t.Fatalf("figures of %d services, %d pools unread, %v", len(figures), unread, err)
			}
			for _, f := range figures {
				free += f.Ports.Free
			}
			return free
		}
		defineMany(t, a, "few", fewServices)
		read(a, fewServices)
		if n := store.Admin.Exists(t.Context(), a.keys.Figures()).Val(); n != 0 {
			t.Error("the figures of few services are shared")
		}
		must(t, a.Remove(t.Context(), Caller{}, "few", "s0"))
		read(b, fewServices-1)

		defineMany(t, a, "more", 2)
		before := read(a, fewServices+1)
		mustDefine(t, a, "web", 2000, 2009)
		if after := read(b, fewServices+1); after != before {
			t.Errorf("%d free ports, want %d as another server has read", after, before)
		}
		if ttl := store.Admin.PTTL(t.Context(), a.keys.Figures()).Val(); ttl <= 0 || ttl > 10*time.Second {
			t.Errorf("they stand for %s", ttl)
		}
		must(t, store.Admin.Set(t.Context(), a.keys.Figures(), "2\nof another version", 0).Err())
		read(b, fewServices+2)
	})
}

// A master of a Cluster is dead: its pools are missing, and the others are there.
func TestManyInAClusterWithADeadMaster(t *testing.T) {
	nodes := storetest.Cluster(t, 3)
	cluster := storetest.ClusterClient(t, nodes)
	a := New(cluster, Options{KeyPrefix: "portmaster", OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: 2 * time.Second})
	const pools, services = 300, 2
	at := map[string][]string{} // the pools by the address of their node
	for i := range pools {
		pool := fmt.Sprint("pool-", i)
		defineMany(t, a, pool, services)
		master, err := cluster.MasterForKey(t.Context(), string(a.keys.Pool(pool)))
		must(t, err)
		at[master.Options().Addr] = append(at[master.Options().Addr], pool)
	}
	if figures, unread, err := a.AllFigures(t.Context()); err != nil || unread != 0 || len(figures) != pools*services {
		t.Errorf("figures of %d services, %d pools unread, %v", len(figures), unread, err)
	}
	must(t, a.executor.Set(t.Context(), a.keys.Figures(), "", time.Millisecond)) // it may not delete them

	missing := at[storetest.EndMaster(t, cluster, nodes, a.keys.Pools(), a.keys.Figures()).Addr]
	began := time.Now()
	figures, unread, err := a.AllFigures(t.Context())
	if err != nil || unread != len(missing) || len(figures) != (pools-len(missing))*services {
		t.Errorf("figures of %d services, %d pools unread, %v; the dead one had %d of %d pools", len(figures), unread, err, len(missing), pools)
	}
	if n := cluster.Exists(t.Context(), a.keys.Figures()).Val(); n != 0 {
		t.Error("figures that are not complete are shared")
	}
	listed, _, err := a.Pools(t.Context(), nil, "", MaxPage)
	must(t, err)
	unknown := 0
	for _, pool := range listed {
		if pool.Services == -1 {
			unknown++
		} else if pool.Services != services {
			t.Errorf("%+v", pool)
		}
	}
	if len(listed) != pools || unknown != len(missing) {
		t.Errorf("%d pools are listed, of %d the number of services is unknown", len(listed), unknown)
	}
	_, _, err = a.Services(t.Context(), missing[0], "", MaxPage)
	wantError(t, "the services of a pool of the dead one", err, ErrUnavailable)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}
