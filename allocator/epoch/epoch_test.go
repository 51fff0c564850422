package epoch

import (
	"errors"
	"testing"
	"time"

	"portmaster/allocator/executor"
	"portmaster/allocator/keyspace"
	"portmaster/allocator/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func newEpoch(store storetest.Store) *Epoch {
	redis := executor.New(store.Client, executor.Options{Timeout: 5 * time.Second, Limit: 100})
	return New(redis, keyspace.Prefix(store.Prefix), Options{})
}

// A server that misses changes hands out nothing although Redis says that all is well, until Redis was told.
func TestMissingUntilRedisWasTold(t *testing.T) {
	e := newEpoch(storetest.Mini(t))
	if err := e.HandsOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	well, err := e.look(t.Context(), "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.recalling.Lock() // until the end Redis is not told
	defer e.recalling.Unlock()
	e.Missing()
	e.learn(well, true) // by a look that began before
	if err := e.HandsOut(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("it hands out: %v", err)
	}
}
