package allocator

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/epoch"
	"portmaster/allocator/executor"
	"portmaster/allocator/storetest"
	"portmaster/lua"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	long  = time.Hour             // an offer that no test outlives
	blink = 40 * time.Millisecond // one of the model, whose clock stands still
	short = time.Second           // one that a test outlives, and no few calls do, however slow the machine is

	quarantine = 30 * time.Millisecond // how long a port is kept out that was rejected as in use
)

// newAllocator returns an Allocator on a store, whose offers are open for a given time.
func newAllocator(store storetest.Store, ttl time.Duration) *Allocator {
	return New(store.Client, Options{
		KeyPrefix: store.Prefix, OfferTTL: ttl, PortMin: 1024, PortMax: 49151, Timeout: 5 * time.Second,
		MaxWait: time.Minute, Quarantine: quarantine,
	})
}

// anew returns an Allocator on the Redis of another one.
func anew(a *Allocator, opts Options) *Allocator {
	return &Allocator{executor: a.executor, keys: a.keys, epoch: epoch.New(a.executor, a.keys, epoch.Options{}), waitlist: newWaitlist(), opts: opts}
}

// optional returns an optional field, which is absent if it is zero.
func optional[T int | time.Duration](value T) *T {
	if value == 0 {
		return nil
	}
	return &value
}

const anyCommand = "return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"

// command runs a command on the Redis of an Allocator.
func command(t *testing.T, a *Allocator, name, key string, args ...any) any {
	t.Helper()
	hash := sha1.Sum([]byte(anyCommand))
	script := &lua.Script{Source: anyCommand, Hash: hex.EncodeToString(hash[:])}
	answer, err := a.executor.WriteUnconfirmed(t.Context(), executor.Call{
		Slot: key, Script: script, Keys: []string{key}, Args: append([]any{name}, args...),
	})
	must(t, err)
	return answer
}

// offerOne offers what one request is for.
func offerOne(ctx context.Context, a *Allocator, pool, service string, r Request, wait time.Duration) (offer Offer, created bool, err error) {
	offers, created, err := a.Offer(ctx, Caller{}, pool, service, []Request{r}, Wait{Longest: wait})
	if err == nil {
		offer = offers[0]
	}
	return offer, created, err
}

// claimOne claims what one request is for.
func claimOne(ctx context.Context, a *Allocator, pool, service string, r Request, wait time.Duration) (allocation Allocation, created bool, err error) {
	allocations, created, err := a.Claim(ctx, Caller{}, pool, service, []Request{r}, Wait{Longest: wait})
	if err == nil {
		allocation = allocations[0]
	}
	return allocation, created, err
}

// The helpers below make calls in the default pool that must succeed.

func mustDefine(t *testing.T, a *Allocator, service string, start, end int) Service {
	t.Helper()
	s, _, err := a.Define(t.Context(), Caller{}, DefaultPool, Definition{Name: service, Start: start, End: end})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOffer(t *testing.T, a *Allocator, service, name string) Offer {
	t.Helper()
	offer, created, err := offerOne(t.Context(), a, DefaultPool, service, Request{Name: name}, 0)
	if err != nil || !created {
		t.Fatalf("offer to %s: created %v, error %v", name, created, err)
	}
	return offer
}

func mustAccept(t *testing.T, a *Allocator, offer Offer) Allocation {
	t.Helper()
	allocation, _, err := a.Accept(t.Context(), Caller{}, DefaultPool, offer.Service, offer.Secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return allocation
}

func mustReject(t *testing.T, a *Allocator, offer Offer) {
	t.Helper()
	_, err := a.Reject(t.Context(), Caller{}, DefaultPool, offer.Service, offer.Secret, false)
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, what string, err error, want *Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %s", what, err, want.Code)
	}
}

// opensNothing tries a secret in every way.
func opensNothing(t *testing.T, a *Allocator, service, secret string) {
	t.Helper()
	_, err := a.OpenOffer(t.Context(), Caller{}, DefaultPool, service, secret)
	wantError(t, "read", err, ErrOfferNotFound)
	_, _, err = a.Accept(t.Context(), Caller{}, DefaultPool, service, secret, nil)
	wantError(t, "accept", err, ErrOfferNotFound)
	_, err = a.Reject(t.Context(), Caller{}, DefaultPool, service, secret, false)
	wantError(t, "reject", err, ErrOfferNotFound)
}

// passes lets time go by: at once, where the store's time is virtual.
func passes(t *testing.T, store storetest.Store, d time.Duration) {
	t.Helper()
	if store.Mini == nil {
		time.Sleep(d)
		return
	}
	store.Mini.SetTime(storeTime(t, store).Add(d))
	store.Mini.FastForward(d)
}

func storeTime(t *testing.T, store storetest.Store) time.Time {
	t.Helper()
	now, err := store.Admin.Time(t.Context()).Result()
	must(t, err)
	return now
}

// fields returns the hash or the members of a key of the default pool, such as names:web.
func fields(t *testing.T, store storetest.Store, key string) string {
	t.Helper()
	names, err := store.Admin.HKeys(t.Context(), store.Prefix+":{default}:"+key).Result()
	must(t, err)
	return strings.Join(names, " ")
}

// snapshot copies all keys of a store, and restore brings them back: STRINGs, HASHes, SETs and ZSETs, without their TTLs.
func snapshot(t *testing.T, store storetest.Store) map[string]any {
	t.Helper()
	all, ctx := map[string]any{}, t.Context()
	for _, key := range allKeys(t, store) {
		switch kind := store.Admin.Type(ctx, key).Val(); kind {
		case "string":
			all[key] = store.Admin.Get(ctx, key).Val()
		case "hash":
			all[key] = store.Admin.HGetAll(ctx, key).Val()
		case "set":
			all[key] = store.Admin.SMembers(ctx, key).Val()
		case "zset":
			all[key] = store.Admin.ZRangeWithScores(ctx, key, 0, -1).Val()
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
	}
	return all
}

func restore(t *testing.T, store storetest.Store, all map[string]any) {
	t.Helper()
	ctx := t.Context()
	for _, key := range allKeys(t, store) {
		must(t, store.Admin.Del(ctx, key).Err())
	}
	for key, value := range all {
		switch value := value.(type) {
		case string:
			must(t, store.Admin.Set(ctx, key, value, 0).Err())
		case map[string]string:
			must(t, store.Admin.HSet(ctx, key, value).Err())
		case []string:
			must(t, store.Admin.SAdd(ctx, key, value).Err())
		case []redis.Z:
			must(t, store.Admin.ZAdd(ctx, key, value...).Err())
		}
	}
}

// differences shows the lines that one state has and the other has not.
func differences(got, want []string) string {
	var text []string
	for _, line := range got {
		if !slices.Contains(want, line) {
			text = append(text, "got  "+line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			text = append(text, "want "+line)
		}
	}
	return strings.Join(text, "\n")
}
