package allocator

import (
	"net"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// TestReplicas lets the replica of a Redis hang under an Allocator that answers a change only when the replica has it.
func TestReplicas(t *testing.T) {
	t.Parallel()
	master := storetest.Open(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := storetest.Open(t, "--replicaof", host, port)
	// Each allocator has connections of its own, on which nothing was changed before.
	const patient, impatient = 5 * time.Second, 400 * time.Millisecond
	fresh := func(timeout time.Duration) *Allocator {
		client := redis.NewClient(master.Options())
		t.Cleanup(func() { client.Close() })
		return New(client, Options{KeyPrefix: master.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: timeout, Replicas: 1})
	}
	a := fresh(patient)
	copied := func() {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); replica.Client.Ping(t.Context()).Err() != nil ||
			master.Client.Do(t.Context(), "wait", 1, 100).Val() != int64(1); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the replica does not come back")
			}
		}
	}
	copied()
	mustDefine(t, a, "web", 2000, 2009)
	held := mustOffer(t, a, "web", "ann")
	mustAccept(t, a, held)
	on := New(replica.Client, Options{KeyPrefix: master.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: time.Second})
	if allocation, err := on.Allocation(t.Context(), DefaultPool, "web", "ann"); err != nil || allocation.Port != held.Port {
		t.Errorf("the replica has %+v, %v", allocation, err)
	}

	// It hangs, and is still counted as one that has what it acknowledged before.
	hung := make(chan error)
	go func() { hung <- redis.NewClient(replica.Options()).Do(t.Context(), "DEBUG", "SLEEP", "3").Err() }()
	time.Sleep(100 * time.Millisecond)
	secret := uuid.NewString()
	for what, ask := range map[string]*Allocator{"an offer": fresh(impatient), "its repeat": fresh(impatient)} {
		_, _, err := offerOne(t.Context(), ask, DefaultPool, "web", Request{Name: "bob", Secret: secret}, 0)
		wantError(t, what, err, ErrOutcomeUnknown)
	}
	_, _, err := fresh(impatient).Accept(t.Context(), Caller{}, DefaultPool, "web", held.Secret, nil)
	wantError(t, "what was accepted before, accepted again", err, ErrOutcomeUnknown)
	wantError(t, "a release of what may be gone", fresh(impatient).Release(t.Context(), Caller{}, DefaultPool, "web", "carl", Proof{}), ErrOutcomeUnknown)
	if _, err := fresh(impatient).Allocation(t.Context(), DefaultPool, "web", "ann"); err != nil {
		t.Errorf("a read: %v", err)
	}

	<-hung
	copied()
	if offer, created, err := offerOne(t.Context(), fresh(patient), DefaultPool, "web", Request{Name: "bob", Secret: secret}, 0); err != nil || created {
		t.Errorf("repeated when the replica is back: %+v, created %v, %v", offer, created, err)
	}
	wantError(t, "a release of nothing", fresh(patient).Release(t.Context(), Caller{}, DefaultPool, "web", "carl", Proof{}), ErrPortNotFound)
}

// A Redis that is full still confirms what holders do, also in a pool that has no key yet by which to wait for replicas, and
// refuses the others for what they are.
func TestReplicasOfAFullRedis(t *testing.T) {
	master := storetest.Open(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := storetest.Open(t, "--replicaof", host, port)
	a := New(master.Client, Options{KeyPrefix: master.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second, Replicas: 1})
	for deadline := time.Now().Add(20 * time.Second); master.Client.Do(t.Context(), "wait", 1, 100).Val() != int64(1); {
		if time.Now().After(deadline) {
			t.Fatal("the replica does not come")
		}
	}
	for _, hasKey := range []bool{true, false} {
		mustDefine(t, a, "web", 2000, 2009)
		offered, held, leased := mustOffer(t, a, "web", "ann"), mustOffer(t, a, "web", "bob"), mustOffer(t, a, "web", "carl")
		mustAccept(t, a, held)
		if _, _, err := a.Accept(t.Context(), Caller{}, DefaultPool, "web", leased.Secret, new(time.Hour)); err != nil {
			t.Fatal(err)
		}
		setMaxMemory(t, master, 1)
		copied := func(what string, err error) {
			t.Helper()
			must(t, err)
			if missing := differing(everything(t, replica, DefaultPool), everything(t, master, DefaultPool)); len(missing) > 0 {
				t.Errorf("%s: the replica has something else in %v", what, missing)
			}
			if !hasKey {
				a.executor.ForgetTrail() // as of a pool in which it has made no call yet
				must(t, master.Admin.Del(t.Context(), a.keys.Pool(DefaultPool).Copied(a.waitlist.server)).Err())
			}
		}
		copied("at first", nil)
		_, _, err := a.Accept(t.Context(), Caller{}, DefaultPool, "web", offered.Secret, nil)
		copied("accept", err)
		_, err = a.Renew(t.Context(), Caller{}, DefaultPool, "web", "carl", leased.Secret, new(time.Hour))
		copied("renew", err)
		for _, name := range []string{"ann", "bob", "carl"} {
			copied("release", a.Release(t.Context(), Caller{}, DefaultPool, "web", name, Proof{}))
		}
		_, _, err = offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "dora"}, 0)
		isRefused(t, "an offer", err)
		setMaxMemory(t, master, 0)
		mustReject(t, a, mustOffer(t, a, "web", "dora"))
	}
}

// What replicas had may never be missing again: a server that finds its own last number gone, or an older one, answers none of the
// calls that went with it, and from then on nothing is handed out.
func TestWhatReplicasHadIsMissing(t *testing.T) {
	master := storetest.Open(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	storetest.Open(t, "--replicaof", host, port)
	open := func() *Allocator {
		return New(master.Client, Options{KeyPrefix: master.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second, Replicas: 1})
	}
	a, other := open(), open()
	for deadline := time.Now().Add(20 * time.Second); master.Client.Do(t.Context(), "wait", 1, 100).Val() != int64(1); {
		if time.Now().After(deadline) {
			t.Fatal("the replica does not come")
		}
	}
	mustDefine(t, a, "web", 2000, 2009)
	a.epoch.Options.Replicas = 0 // or a look that waits for the replicas may be the first to find it
	key := a.keys.Pool(DefaultPool).Copied(a.waitlist.server)
	for _, lose := range []func() error{
		func() error { return master.Admin.Del(t.Context(), key).Err() },
		func() error { return master.Admin.DecrBy(t.Context(), key, 2).Err() },
	} {
		mustReject(t, a, mustOffer(t, a, "web", "ann"))
		mustReject(t, other, mustOffer(t, other, "web", "bob"))
		mustReject(t, a, mustOffer(t, a, "web", "ann"))
		_, _, err := claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "erin"}, 0)
		must(t, err)
		must(t, lose())
		_, _, err = claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "carl"}, 0)
		wantError(t, "a claim", err, ErrOutcomeUnknown)
		_, _, err = claimOne(t.Context(), a, DefaultPool, "web", Request{Name: "dora"}, 0)
		wantError(t, "a claim after it", err, ErrUnavailable)
		for deadline := time.Now().Add(10 * time.Second); readEpoch(t, a)["state"] != "lost"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("Redis is not told")
			}
		}
		wantProblems(t, a, StateLost)
		wantProblems(t, other, StateLost)
		if _, err := other.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantProblems(t, a)
		wantProblems(t, other)
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "carl", Proof{}))
		must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "erin", Proof{}))
	}

	must(t, master.Admin.Del(t.Context(), key).Err()) // with a state that is known to be another one nothing is missing
	must(t, master.Admin.HSet(t.Context(), a.keys.Epoch(), "state", "lost").Err())
	if _, err := other.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, a)
	mustReject(t, a, mustOffer(t, a, "web", "ann"))
}

// What no replica has may get lost, and nothing is amiss.
func TestPulseThatNoReplicaHas(t *testing.T) {
	store := storetest.Mini(t)
	a := New(store.Client, Options{KeyPrefix: store.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: time.Second, Replicas: 1})
	looks(t, store, a, 2)
	backup := snapshot(t, store)
	looks(t, store, a, 2)
	restore(t, store, backup)
	wantProblems(t, a)
}

// So may a fence that another server gave, of which this one does not know that a replica has it.
func TestFenceThatNoReplicaHas(t *testing.T) {
	store := storetest.Mini(t)
	a, other := newAllocator(store, long), newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2009)
	mustClaim(t, a, Request{Name: "ann"})
	a.epoch.Options.Replicas = 1 // a miniredis has no replicas: what they have is as above
	backup := snapshot(t, store)
	mustClaim(t, other, Request{Name: "bob"})
	must(t, a.epoch.CheckFences(t.Context(), DefaultPool))
	restore(t, store, backup)
	must(t, a.epoch.CheckFences(t.Context(), DefaultPool))
	wantProblems(t, a)
}
