package allocator

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// act is a call, and what has to be there before. Each has a service of its own, with ports 2000 to 2199 of a pool of its own.
type act struct {
	before func(t *testing.T, a *Allocator, pool string) (secret string)
	call   func(ctx context.Context, a *Allocator, pool, secret string) error
}

// The services of these tests have 200 ports.
func memoryService(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	_, _, err := a.Define(t.Context(), Caller{}, pool, Definition{Name: "web", Start: 2000, End: 2199})
	must(t, err)
}

func offerOf(t *testing.T, a *Allocator, pool string, w Request) (secret string) {
	t.Helper()
	offer, _, err := offerOne(t.Context(), a, pool, "web", w, 0)
	must(t, err)
	return offer.Secret
}

func claimOf(t *testing.T, a *Allocator, pool string, w Request) (secret string) {
	t.Helper()
	allocation, _, err := claimOne(t.Context(), a, pool, "web", w, 0)
	must(t, err)
	return allocation.Secret
}

func claimAct(want Request, before func(t *testing.T, a *Allocator, pool string)) act {
	return act{
		func(t *testing.T, a *Allocator, pool string) string {
			if before != nil {
				before(t, a, pool)
			}
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := claimOne(ctx, a, pool, "web", want, 0)
			return err
		},
	}
}

func defineAct(d Definition, before func(t *testing.T, a *Allocator, pool string)) act {
	found := claimAct(Request{}, before)
	found.call = func(ctx context.Context, a *Allocator, pool, _ string) error {
		d.Ranges = []Range{{d.Start, d.End}}
		_, _, _, err := a.defineOnce(ctx, Caller{}, pool, d, true) // the script, which goes behind that of the list of pools
		return err
	}
	return found
}

// inPieces leaves every other port given back, and all others of the first 100 held.
func inPieces(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	for port := 2000; port < 2100; port++ {
		claimOf(t, a, pool, Request{Name: "p" + strconv.Itoa(port), Port: new(port)})
	}
	for port := 2000; port < 2100; port += 2 {
		must(t, a.Release(t.Context(), Caller{}, pool, "web", "p"+strconv.Itoa(port), Proof{}))
	}
}

// givenBack leaves all ports given back, and so in no run.
func givenBack(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	for i := range 2 {
		secret := claimOf(t, a, pool, Request{Name: "all-" + strconv.Itoa(i), Count: new(100)})
		must(t, a.Release(t.Context(), Caller{}, pool, "web", "all-"+strconv.Itoa(i), Proof{Secret: secret}))
	}
}

func hundred(lease time.Duration) (wants []Request) {
	for i := range 100 {
		wants = append(wants, Request{Name: fmt.Sprintf("n-%d", i), Lease: optional(lease), Count: new(1 + i%2)})
	}
	return wants
}

// Who comes: refused before anything is changed.
var newcomers = map[string]act{
	"a claim of a fresh port":  claimAct(Request{Name: "ann"}, nil),
	"a claim with a lease":     claimAct(Request{Name: "ann", Lease: new(time.Hour)}, nil),
	"a claim of a port before": claimAct(Request{Name: "ann"}, inPieces),
	"a claim of a block":       claimAct(Request{Name: "ann", Count: new(10)}, givenBack),
	"a claim with labels":      claimAct(Request{Name: "ann", Labels: job}, nil),
	"a claim of a port":        claimAct(Request{Name: "ann", Port: new(2002)}, inPieces),
	"a claim after a lease": claimAct(Request{Name: "ann", Port: new(2003)}, func(t *testing.T, a *Allocator, pool string) {
		claimOf(t, a, pool, Request{Name: "bob", Port: new(2001), Count: new(5), Lease: new(MinLease)})
		time.Sleep(MinLease + 20*time.Millisecond)
	}),
	"a claim after a rest": claimAct(Request{Name: "ann"}, func(t *testing.T, a *Allocator, pool string) {
		_, err := a.Reject(t.Context(), Caller{}, pool, "web", offerOf(t, a, pool, Request{Name: "bob"}), true)
		must(t, err)
		time.Sleep(2 * quarantine)
	}),
	"a claim of many": {
		func(t *testing.T, a *Allocator, pool string) string { givenBack(t, a, pool); return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := a.Claim(ctx, Caller{}, pool, "web", hundred(time.Hour), Wait{})
			return err
		},
	},
	"an offer": {
		func(*testing.T, *Allocator, string) string { return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := offerOne(ctx, a, pool, "web", Request{Name: "ann"}, 0)
			return err
		},
	},
	"an offer with labels": {
		func(*testing.T, *Allocator, string) string { return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := offerOne(ctx, a, pool, "web", Request{Name: "ann", Labels: job}, 0)
			return err
		},
	},
	"a change of labels": {
		func(t *testing.T, a *Allocator, pool string) string { return claimOf(t, a, pool, Request{Name: "ann"}) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.ChangeLabels(ctx, Caller{}, pool, "web", "ann", secret, map[string]*string{"job": new("4711")})
			return err
		},
	},
	"an offer of many": {
		func(t *testing.T, a *Allocator, pool string) string { inPieces(t, a, pool); return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := a.Offer(ctx, Caller{}, pool, "web", hundred(0), Wait{})
			return err
		},
	},
	"a position": {
		func(t *testing.T, a *Allocator, pool string) string {
			claimOf(t, a, pool, Request{Name: "bob", Count: new(100)})
			claimOf(t, a, pool, Request{Name: "carl", Count: new(100)})
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			_, _, err := claimOne(ctx, a, pool, "web", Request{Name: "ann"}, time.Second)
			return err
		},
	},
	"an offer of an owner":         ownersAct(ann, false, 1),
	"a claim of an owner":          ownersAct(ann, true, 1),
	"an offer of many of an owner": ownersAct(bob, false, 100),
	"a claim of many of an owner":  ownersAct(bob, true, 100),
	"a new pool": {
		func(*testing.T, *Allocator, string) string { return "" },
		func(ctx context.Context, a *Allocator, _, _ string) error {
			_, _, err := a.Define(ctx, Caller{}, "new", Definition{Name: "web", Start: 2000, End: 2199})
			return err
		},
	},
	"a new service":         defineAct(Definition{Name: "db", Start: 3000, End: 3099}, nil),
	"another description":   defineAct(Definition{Name: "web", Description: "new", Start: 2000, End: 2199}, nil),
	"a range that grows":    defineAct(Definition{Name: "web", Start: 2000, End: 2299}, givenBack),
	"a range that is cut":   defineAct(Definition{Name: "web", Start: 2100, End: 2199}, givenBack),
	"a shorter cool-down":   defineAct(Definition{Name: "web", Start: 2000, End: 2199}, coolsDown),
	"a cut of what is held": defineAct(Definition{Name: "web", Start: 2000, End: 2009}, givenBack),
}

func coolsDown(t *testing.T, a *Allocator, pool string) {
	t.Helper()
	_, _, err := a.Define(t.Context(), Caller{}, pool, Definition{Name: "web", Start: 2000, End: 2199, Cooldown: time.Hour})
	must(t, err)
	inPieces(t, a, pool)
}

func holderAct(before func(t *testing.T, a *Allocator, pool string) string, call func(ctx context.Context, a *Allocator, pool, secret string) error) act {
	return act{before, call}
}

// Who holds: all goes through.
var holders = map[string]act{
	"accept": acceptAct(Request{Name: "ann"}, 0),
	"accept shortly before its end": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			opts := a.opts
			opts.OfferTTL = 30 * time.Second
			return offerOf(t, anew(a, opts), pool, Request{Name: "ann"})
		},
		acceptAct(Request{}, 0).call),
	"accept for a lease":    acceptAct(Request{Name: "ann"}, time.Hour),
	"accept a leased block": acceptAct(Request{Name: "ann", Count: new(100), Lease: new(time.Hour)}, 0),
	"accept with labels":    acceptAct(Request{Name: "ann", Labels: job}, 0),
	"accept a block":        acceptAct(Request{Name: "ann", Count: new(100)}, 0),
	"renew":                 renewAct(Request{Name: "ann", Lease: new(time.Hour)}),
	"renew what has none":   renewAct(Request{Name: "ann"}),
	"renew with labels":     renewAct(Request{Name: "ann", Labels: job}),
	"renew a block":         renewAct(Request{Name: "ann", Lease: new(time.Hour), Count: new(100)}),
	"release":               releaseAct(Request{Name: "ann"}, false),
	"release with labels":   releaseAct(Request{Name: "ann", Labels: job}, false),
	"take labels away": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			return claimOf(t, a, pool, Request{Name: "ann", Labels: other})
		},
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.ChangeLabels(ctx, Caller{}, pool, "web", "ann", secret, map[string]*string{"job": nil})
			return err
		}),
	"release with a secret":  releaseAct(Request{Name: "ann"}, true),
	"release a lease":        releaseAct(Request{Name: "ann", Lease: new(time.Hour)}, false),
	"release a leased block": releaseAct(Request{Name: "ann", Lease: new(time.Hour), Count: new(100)}, true),
	"reject":                 rejectAct(Request{Name: "ann"}, false),
	"reject with labels":     rejectAct(Request{Name: "ann", Labels: job}, true),
	"reject a block":         rejectAct(Request{Name: "ann", Count: new(100)}, false),
	"reject as in use":       rejectAct(Request{Name: "ann"}, true),
	"accept by an owner": ownedAct(Request{Name: "ann"}, false, func(ctx context.Context, a *Allocator, pool, secret string) error {
		_, _, err := a.Accept(ctx, bob, pool, "web", secret, nil)
		return err
	}),
	"release by an owner": ownedAct(Request{Name: "ann"}, true, func(ctx context.Context, a *Allocator, pool, _ string) error {
		return a.Release(ctx, bob, pool, "web", "ann", Proof{})
	}),
	"accept the block of an owner":  ownedAct(Request{Name: "ann", Count: new(100)}, false, acceptAct(Request{}, 0).call),
	"reject the block of an owner":  ownedAct(Request{Name: "ann", Count: new(100)}, false, rejectAct(Request{}, true).call),
	"renew what an owner has":       ownedAct(Request{Name: "ann"}, true, renewAct(Request{}).call),
	"release the block of an owner": ownedAct(Request{Name: "ann", Count: new(100)}, true, releaseAct(Request{}, false).call),
	"release as in use": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			return claimOf(t, a, pool, Request{Name: "ann", Count: new(100), Lease: new(time.Hour)})
		},
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.ReleaseInUse(ctx, Caller{}, pool, "web", "ann", Proof{Secret: secret})
			return err
		}),
	"settle": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			_, err := a.Reject(t.Context(), Caller{}, pool, "web", offerOf(t, a, pool, Request{Name: "bob"}), true)
			must(t, err)
			time.Sleep(2 * quarantine)
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			return a.settle(ctx, a.keys.Pool(pool), "web")
		}),
	"settle a range that grew": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			claimOf(t, a, pool, Request{Name: "last", Port: new(2199)}) // so that what is added joins no run
			command(t, a, "hset", a.keys.Pool(pool).Service("web"), "end", 2299, "changing", "add 2200 2299")
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			return a.settle(ctx, a.keys.Pool(pool), "web")
		}),
	"remove": holderAct(
		func(t *testing.T, a *Allocator, pool string) string {
			coolsDown(t, a, pool)
			for port := 2001; port < 2100; port += 2 {
				must(t, a.Release(t.Context(), Caller{}, pool, "web", "p"+strconv.Itoa(port), Proof{}))
			}
			return ""
		},
		func(ctx context.Context, a *Allocator, pool, _ string) error {
			return a.Remove(ctx, Caller{}, pool, "web")
		}),
}

func acceptAct(want Request, lease time.Duration) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return offerOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, _, err := a.Accept(ctx, Caller{}, pool, "web", secret, optional(lease))
			return err
		})
}

func renewAct(want Request) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return claimOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.Renew(ctx, Caller{}, pool, "web", "ann", secret, new(time.Hour))
			return err
		})
}

func releaseAct(want Request, proves bool) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return claimOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			if !proves {
				secret = ""
			}
			return a.Release(ctx, Caller{}, pool, "web", "ann", Proof{Secret: secret})
		})
}

func rejectAct(want Request, inUse bool) act {
	return holderAct(
		func(t *testing.T, a *Allocator, pool string) string { return offerOf(t, a, pool, want) },
		func(ctx context.Context, a *Allocator, pool, secret string) error {
			_, err := a.Reject(ctx, Caller{}, pool, "web", secret, inUse)
			return err
		})
}
