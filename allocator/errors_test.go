package allocator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

func TestErrorsAreToldApart(t *testing.T) {
	all := []*Error{ErrInvalid, ErrServiceNotFound, ErrOfferNotFound, ErrPortNotFound, ErrServiceExists, ErrRangeOverlap, ErrRangeInUse,
		ErrServiceInUse, ErrLimitReached, ErrNameTaken, ErrOfferAccepted, ErrOfferRejected, ErrExhausted, ErrNotOwner, ErrQuotaExceeded,
		ErrPreconditionFailed, ErrUnavailable, ErrOutcomeUnknown}
	for _, one := range all {
		wrapped := fmt.Errorf("while testing: %w", &Error{Code: one.Code, Detail: "of this call", cause: io.EOF})
		for _, other := range all {
			if errors.Is(wrapped, other) != (one == other) {
				t.Errorf("%v is taken for %v, or not for itself", wrapped, other)
			}
		}
		if !errors.Is(wrapped, io.EOF) {
			t.Errorf("%v hides its cause", wrapped)
		}
		fromRedis := fromScript(one.Code, "of this call")
		if ofScripts := one != ErrUnavailable && one != ErrOutcomeUnknown; ofScripts != (fromRedis != nil) || ofScripts && !errors.Is(fromRedis, one) {
			t.Errorf("read from a script's answer, %s is %v", one.Code, fromRedis)
		}
	}
}

func TestRedisIsAway(t *testing.T) {
	store, stop, start := storetest.Private(t)
	a := newAllocator(store, long)
	mustDefine(t, a, "web", 2000, 2009)
	offer := mustOffer(t, a, "web", "ann")
	stop()
	began := time.Now()
	for what, err := range everyCall(t, a, offer) {
		wantError(t, what, err, ErrUnavailable)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the calls took %s: each should fail at once", took)
	}
	start() // without the scripts, which the calls have to load anew
	if allocation := mustAccept(t, a, offer); allocation.Port != offer.Port {
		t.Errorf("%+v", allocation)
	}
}

// everyCall makes each call that is a script or a command and returns the errors, by the name of the call.
func everyCall(t *testing.T, a *Allocator, offer Offer) map[string]error {
	ctx := t.Context()
	errs := map[string]error{}
	_, _, errs["define"] = a.Define(ctx, Caller{}, DefaultPool, Definition{Name: "db", Start: 3000, End: 3001})
	_, _, errs["offer"] = offerOne(ctx, a, DefaultPool, "web", Request{Name: "bob"}, 0)
	_, _, errs["accept"] = a.Accept(ctx, Caller{}, DefaultPool, "web", offer.Secret, nil)
	_, _, errs["claim"] = claimOne(ctx, a, DefaultPool, "web", Request{Name: "carl"}, 0)
	_, errs["renew"] = a.Renew(ctx, Caller{}, DefaultPool, "web", "ann", offer.Secret, new(MinLease))
	_, errs["reject"] = a.Reject(ctx, Caller{}, DefaultPool, "web", offer.Secret, false)
	errs["release"] = a.Release(ctx, Caller{}, DefaultPool, "web", "ann", Proof{})
	errs["remove"] = a.Remove(ctx, Caller{}, DefaultPool, "web")
	_, errs["service"] = a.Service(ctx, DefaultPool, "web")
	_, _, errs["services"] = a.Services(ctx, DefaultPool, "", 1)
	_, _, errs["offers"] = a.Offers(ctx, DefaultPool, "web", Filter{}, "", 1)
	_, _, errs["pools"] = a.Pools(ctx, nil, "", 1)
	_, errs["check"] = a.Check(ctx)
	return errs
}

// A Redis that hangs may do what it was sent when it wakes up; of a call that changes nothing that does not matter.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	a := New(store.Client, Options{KeyPrefix: store.Prefix, OfferTTL: long, PortMin: 1024, PortMax: 49151, Timeout: 200 * time.Millisecond})
	mustDefine(t, a, "web", 2000, 2009)
	countFences(t, a, store)
	offer := mustOffer(t, a, "web", "ann")
	hang := func() {
		t.Helper()
		go store.Admin.Do(context.Background(), "DEBUG", "SLEEP", "1")
		time.Sleep(100 * time.Millisecond) // until it sleeps
	}
	awake := func() {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); store.Admin.Ping(t.Context()).Err() != nil; {
			if time.Now().After(deadline) {
				t.Fatal("Redis does not wake up")
			}
		}
	}
	hang()
	_, _, err := a.Accept(t.Context(), Caller{}, DefaultPool, "web", offer.Secret, nil)
	wantError(t, "accept", err, ErrOutcomeUnknown)
	awake()
	mustAccept(t, a, offer)
	if given := store.Admin.Get(t.Context(), a.keys.Pool(DefaultPool).Fence()).Val(); given != "4000000000000001" {
		t.Errorf("repeated with the same secret: fence %s", given)
	}
	hang()
	_, err = a.Service(t.Context(), DefaultPool, "web")
	wantError(t, "service", err, ErrUnavailable)
	awake()
}

// countFences lets fences count from 4e15 on: that is beyond the time.
func countFences(t *testing.T, a *Allocator, store storetest.Store) {
	t.Helper()
	must(t, store.Admin.Set(t.Context(), a.keys.Pool(DefaultPool).Fence(), int64(4e15), 0).Err())
}

func TestScriptsThatRedisForgot(t *testing.T) {
	store, _, _ := storetest.Private(t)
	a := newAllocator(store, long)
	forget := func() { must(t, store.Admin.ScriptFlush(t.Context()).Err()) }
	countFences(t, a, store)
	forget()
	mustDefine(t, a, "web", 2000, 2009)
	forget()
	offer := mustOffer(t, a, "web", "ann")
	forget()
	if first := mustAccept(t, a, offer); first.Fence != 4e15+1 {
		t.Errorf("fence %d: the script ran more than once", first.Fence)
	}
	forget()
	must(t, a.Release(t.Context(), Caller{}, DefaultPool, "web", "ann", Proof{}))
}

// A call whose answer is lost ran once, and whoever made it is told that nobody knows.
func TestCallIsSentOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		direct := newAllocator(store, long)
		mustDefine(t, direct, "web", 2000, 2009)
		mustReject(t, direct, mustOffer(t, direct, "web", "ann")) // so that Redis knows the script
		mustOffer(t, direct, "web", "ann")

		proxy := losesAnswers(t, store)
		options := store.Options()
		options.Addr, options.TLSConfig, options.Dialer = proxy.addr, nil, nil
		options.MaxRetries = 3 // a client that repeats what it may
		client := redis.NewClient(options)
		t.Cleanup(func() { client.Close() })
		throughProxy := store
		throughProxy.Client = client
		a := newAllocator(throughProxy, long)
		_, err := a.Check(t.Context()) // so that it knows which state is there
		must(t, err)
		proxy.scripts.Store(0)
		proxy.lose.Store(true)
		secret := uuid.NewString()
		_, _, err = offerOne(t.Context(), a, DefaultPool, "web", Request{Name: "bob", Secret: secret}, 0)
		wantError(t, "the answer was lost", err, ErrOutcomeUnknown)
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells the secret: %v", err)
		}
		if n := proxy.scripts.Load(); n != 1 {
			t.Errorf("the script was sent %d times", n)
		}
		if offer, created, err := offerOne(t.Context(), direct, DefaultPool, "web", Request{Name: "bob", Secret: secret}, 0); err != nil || created || offer.Name != "bob" {
			t.Errorf("repeated with the same secret: %+v, created %v, error %v", offer, created, err)
		}
	})
}

// proxy forwards to a store, by itself without TLS; on demand it drops the answers to scripts, and closes.
type proxy struct {
	addr    string
	lose    atomic.Bool
	scripts atomic.Int64 // sent while answers were dropped
}

func losesAnswers(t *testing.T, to storetest.Store) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	p := &proxy{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := to.Dial()
			if err != nil {
				client.Close()
				return
			}
			go p.forward(client, server)
		}
	}()
	return p
}

func (p *proxy) forward(client, server net.Conn) {
	var losing atomic.Bool
	go func() { // answers
		defer client.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil || losing.Load() {
				return
			}
			client.Write(buffer[:n])
		}
	}()
	defer server.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if sent := int64(strings.Count(strings.ToLower(string(buffer[:n])), "evalsha")); p.lose.Load() && sent > 0 {
			p.scripts.Add(sent)
			losing.Store(true)
		}
		server.Write(buffer[:n])
	}
}
