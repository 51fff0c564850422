package allocator

import (
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// Mutants that these tests were seen to catch: each finding of judge never found, or always; a replica is marked; a state
// that is gone is taken for a new one; a mark set since is taken for the old one; a recovered one is not believed; no port
// is refused; a service is defined in an emptied store.

func wantProblems(t *testing.T, a *Allocator, want ...Problem) {
	t.Helper()
	findings, err := a.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []Problem
	for _, f := range findings {
		got = append(got, f.Problem)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", findings, want)
	}
}

func TestCheckFindsWhatMakesARedisUnfit(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want []Problem
	}{
		"fit":              {nil, nil},
		"evicting":         {[]string{"--maxmemory-policy", "volatile-ttl"}, []Problem{Evicts}},
		"a replica":        {[]string{"--replicaof", "127.0.0.1", "1"}, []Problem{NotMaster}},
		"keeping nothing":  {[]string{"--appendonly", "no"}, []Problem{Volatile}},
		"saving snapshots": {[]string{"--appendonly", "no", "--save", "3600 1 300 100 60 10000"}, []Problem{Volatile}},
		"evicting replica": {[]string{"--maxmemory-policy", "allkeys-lru", "--replicaof", "127.0.0.1", "1"}, []Problem{Evicts, NotMaster}},
	} {
		t.Run(name, func(t *testing.T) {
			store, _, _ := storetest.Private(t, test.args...)
			wantProblems(t, newAllocator(store, long), test.want...)
		})
	}
}

// A snapshot does not have what came after it: Redis at its defaults, 50 s after it saved one.
func TestCheckWarnsOfASnapshotAlone(t *testing.T) {
	found := new(Allocator).judge(map[string]string{
		"aof_enabled": "0", "server_time_usec": "1700000100000000", "uptime_in_seconds": "100", "rdb_last_save_time": "1700000050",
	})
	if len(found) != 1 || found[0].Problem != Volatile || !strings.Contains(found[0].Detail, "snapshot") {
		t.Errorf("it found %v", found)
	}
}

func TestCheckBelievesWhoAllowsNone(t *testing.T) {
	store, _, _ := storetest.Private(t, "--appendonly", "no")
	wantProblems(t, New(store.Client, Options{KeyPrefix: store.Prefix, Timeout: long, AllowVolatile: true}))
}

func TestCheckFindsAFailedWrite(t *testing.T) {
	found := new(Allocator).judge(map[string]string{"role": "master", "maxmemory_policy": "noeviction", "aof_enabled": "1", "aof_last_write_status": "err"})
	if len(found) != 1 || found[0].Problem != WriteFailed {
		t.Errorf("it found %v", found)
	}
}

// An embedded store has none of these problems, and not the figures that would tell.
func TestCheckOfTheEmbeddedStore(t *testing.T) {
	wantProblems(t, newAllocator(storetest.Mini(t), long))
}

func TestStateThatIsGoneIsNotBuiltUpon(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		old, other, newer := newAllocator(store, long), newAllocator(store, long), newAllocator(store, long)
		mustDefine(t, old, "web", 2000, 2009)
		offer := mustOffer(t, old, "web", "ann")
		wantProblems(t, old)
		wantProblems(t, other)

		for _, key := range allKeys(t, store) {
			must(t, store.Admin.Del(t.Context(), key).Err())
		}
		wantError(t, "a release, before anybody has noticed", old.Release(t.Context(), DefaultPool, "web", "ann", Proof{}), ErrUnavailable)
		for _, key := range allKeys(t, store) {
			must(t, store.Admin.Del(t.Context(), key).Err())
		}
		wantProblems(t, newer) // a server that has just started believes that it is the first, and marks the store
		_, _, err := old.Define(t.Context(), DefaultPool, Definition{Name: "web", Start: 2000, End: 2009})
		wantError(t, "a service", err, ErrUnavailable)
		wantProblems(t, old, StateLost)
		wantProblems(t, other, StateLost)
		wantProblems(t, newer, StateLost) // as the others found out
		wantProblems(t, newAllocator(store, long), StateLost)
		for _, a := range []*Allocator{old, other, newer} {
			_, _, err := a.Offer(t.Context(), DefaultPool, "web", Want{Name: "bob"}, 0)
			wantError(t, "an offer", err, ErrUnavailable)
			_, _, err = a.Accept(t.Context(), DefaultPool, "web", offer.Secret, 0)
			wantError(t, "an acceptance", err, ErrUnavailable)
			_, err = a.Renew(t.Context(), DefaultPool, "web", "ann", offer.Secret, MinLease)
			wantError(t, "a renewal", err, ErrUnavailable)
			wantError(t, "a release", a.Release(t.Context(), DefaultPool, "web", "ann", Proof{Secret: offer.Secret}), ErrUnavailable)
			_, err = a.Reject(t.Context(), DefaultPool, "web", offer.Secret, false)
			wantError(t, "a rejection", err, ErrUnavailable)
			_, err = a.Allocation(t.Context(), DefaultPool, "web", "ann")
			wantError(t, "a look at an allocation", err, ErrUnavailable)
			_, err = a.OpenOffer(t.Context(), DefaultPool, "web", offer.Secret)
			wantError(t, "a look at an offer", err, ErrUnavailable)
			_, err = a.Service(t.Context(), DefaultPool, "web")
			wantError(t, "a read", err, ErrServiceNotFound)
		}

		for i, needed := range []bool{true, false} {
			if was, err := other.Recover(t.Context()); err != nil || was != needed {
				t.Errorf("recovered the %d. time: needed %v, %v", i+1, was, err)
			}
		}
		for _, a := range []*Allocator{old, other, newer} {
			wantProblems(t, a)
			mustDefine(t, a, "web", 2000, 2009)
		}
		mustOffer(t, newer, "web", "bob")
	})
}

// What is recovered is one state. Another one that was recovered, too, does not count for it.
func TestRecoverAcceptsOneState(t *testing.T) {
	marks, servers := []string{}, []*Allocator{}
	for range 2 {
		store := storetest.Mini(t)
		a := newAllocator(store, long)
		wantProblems(t, a)
		healthy := store.Client.Get(t.Context(), a.deploymentKey()).Val()
		if needed, err := a.Recover(t.Context()); err != nil || needed || store.Client.Get(t.Context(), a.deploymentKey()).Val() != healthy {
			t.Errorf("where nothing was lost it is needed %v, %v, and changes the mark", needed, err)
		}
		must(t, store.Admin.Del(t.Context(), a.deploymentKey()).Err())
		wantProblems(t, a, StateLost)
		if needed, err := a.Recover(t.Context()); err != nil || !needed {
			t.Errorf("needed %v, %v", needed, err)
		}
		wantProblems(t, a)
		marks, servers = append(marks, store.Client.Get(t.Context(), a.deploymentKey()).Val()), append(servers, a)
	}
	for i, a := range servers {
		must(t, a.redis.Set(t.Context(), a.deploymentKey(), marks[1-i], 0).Err())
		wantProblems(t, a, StateLost)
	}
}

// A backup brings back the mark of then, and nobody has said that it counts.
func TestStateOfAnotherDeploymentIsNoticed(t *testing.T) {
	store := storetest.Mini(t)
	a := newAllocator(store, long)
	wantProblems(t, a)
	backup := store.Client.Get(t.Context(), a.deploymentKey()).Val()
	must(t, store.Admin.Del(t.Context(), a.deploymentKey()).Err())
	wantProblems(t, a, StateLost)
	if _, err := a.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, a)
	must(t, store.Admin.Set(t.Context(), a.deploymentKey(), backup, redis.KeepTTL).Err())
	wantProblems(t, a, StateLost)
}
