package allocator

import (
	"context"
	"testing"
	"time"
)

// The acts of owners: they write to a key more.

// ownersAct is an owner's offer or claim of so many ports.
func ownersAct(caller Caller, claims bool, n int) act {
	return act{
		func(*testing.T, *Allocator, string) string { return "" },
		func(ctx context.Context, a *Allocator, pool, _ string) (err error) {
			if claims {
				_, _, err = a.Claim(ctx, caller, pool, "web", hundred(time.Hour)[:n], Wait{})
			} else {
				_, _, err = a.Offer(ctx, caller, pool, "web", hundred(time.Hour)[:n], Wait{})
			}
			return err
		},
	}
}

// ownedAct is a call about what bob was offered or has.
func ownedAct(r Request, claims bool, call func(ctx context.Context, a *Allocator, pool, secret string) error) act {
	return holderAct(func(t *testing.T, a *Allocator, pool string) string {
		t.Helper()
		if claims {
			allocations, _, err := a.Claim(t.Context(), bob, pool, "web", []Request{r}, Wait{})
			must(t, err)
			return allocations[0].Secret
		}
		offers, _, err := a.Offer(t.Context(), bob, pool, "web", []Request{r}, Wait{})
		must(t, err)
		return offers[0].Secret
	}, call)
}
