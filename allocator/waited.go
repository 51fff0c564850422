package allocator

import (
	"context"
	"time"
)

// waitedKey is where a context carries what WithWaited gave it.
type waitedKey struct{}

// WithWaited returns a context whose call says in waited for how long it stood in line: from when it joined until it was
// woken the last time. It may be read when the call is over.
func WithWaited(ctx context.Context, waited *time.Duration) context.Context {
	return context.WithValue(ctx, waitedKey{}, waited)
}

// recordWaited tells who wants to know it that a call has stood in line since it joined, and is woken now.
func recordWaited(ctx context.Context, joined time.Time) {
	if waited, ok := ctx.Value(waitedKey{}).(*time.Duration); ok {
		*waited = time.Since(joined)
	}
}
