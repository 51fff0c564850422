package executor

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// A Waiter wakes when an entry comes, at a single node, behind Sentinels, in a Cluster, and after its connection broke; and it takes no
// connection of others.
func TestWaiter(t *testing.T) {
	waits := func(t *testing.T, client Client, admin redis.UniversalClient, prefix string) {
		e := New(client, Options{Timeout: 5 * time.Second, Limit: 100})
		slot := prefix + ":{default}:"
		key := slot + "events:web"
		w := e.Waiter(slot)
		defer w.Close()
		admin.Ping(t.Context()) // may be the same client
		before := client.PoolStats().TotalConns
		for range 2 {
			woken := make(chan time.Duration)
			go func() {
				began := time.Now()
				w.Wait(t.Context(), []string{slot + "events:db", key}, []string{"0-0", "$"}, time.Minute)
				woken <- time.Since(began)
			}()
			for waiting := true; waiting; {
				if err := admin.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []string{"event", "x"}}).Err(); err != nil {
					t.Fatal(err)
				}
				select {
				case took := <-woken:
					if waiting = false; took > 50*time.Second {
						t.Errorf("it was not woken in %s", took)
					}
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		if after := client.PoolStats().TotalConns; after > before {
			t.Errorf("it took %d connections of the pool", after-before)
		}
		began := time.Now()
		w.Wait(t.Context(), []string{key}, []string{"$"}, 50*time.Millisecond)
		if time.Since(began) < 50*time.Millisecond {
			t.Error("it woke before its time, without an entry")
		}
	}
	storetest.Each(t, func(t *testing.T, store storetest.Store) { waits(t, store.Client, store.Admin, store.Prefix) })
	t.Run("sentinel", func(t *testing.T) {
		store := storetest.Open(t)
		client := redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: "mymaster", SentinelAddrs: []string{storetest.Sentinel(t, store)}, Protocol: 2, MaxRetries: -1, ContextTimeoutEnabled: true,
		})
		t.Cleanup(func() { client.Close() })
		waits(t, client, store.Admin, store.Prefix)
	})
	t.Run("cluster", func(t *testing.T) {
		node := storetest.Cluster(t, 1)[0]
		client := redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: []string{node.Addr}, Username: storetest.User, Password: storetest.Password, Protocol: 2, MaxRetries: -1, ContextTimeoutEnabled: true,
		})
		t.Cleanup(func() { client.Close() })
		waits(t, client, node.Admin, "portmaster")
	})
}
