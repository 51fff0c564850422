package allocator

import (
	"context"
	"strings"

	"portmaster/allocator/executor"
)

// Caller is who makes a call. The zero value is nobody in particular: it may do everything, and what it gets has no owner.
type Caller struct {
	Owner      string // of the offers and allocations that it gets: at most MaxOwner of OwnerChars; "": none
	Held       int    // how many ports the owner may hold in a pool, open offers included; 0: any number
	IsOperator bool   // it may act on what others own
	RequestID  string // of the request that makes the call, for the history; "" if it has none
}

// The bounds of an owner.
const (
	MaxOwner   = 128 // bytes
	OwnerChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:/@+"
)

// owner checks the name of an owner: it needs no escapes in a record, and no key contains another.
func (f *faults) owner(field, owner string) {
	if len(owner) > MaxOwner || strings.TrimLeft(owner, OwnerChars) != "" {
		f.add(field, "must be 1 to %d of A-Z a-z 0-9 . _ - : / @ +", MaxOwner)
	}
}

// maxOwners is how often a call looks up the owner of a record again, if that changes meanwhile.
const maxOwners = 3

// runOwned runs a script that acts on a record with the key of the caller's owner, and, if the record has another owner and the
// caller may act on it, with the key of that one. Most calls are about records of the caller itself.
func (a *Allocator) runOwned(
	ctx context.Context, pool string, caller Caller, call executor.Call, run func(context.Context, executor.Call) (any, error),
) (answer any, err error) {
	owner, mustOwn := caller.Owner, flag(!caller.IsOperator)
	for range maxOwners {
		c := call
		a.keys.Pool(pool).AddOwner(&c, owner, mustOwn)
		answer, err = run(ctx, c)
		other, isAnothers := anotherOwner(answer)
		if err != nil || !isAnothers {
			return answer, err
		}
		owner, mustOwn = other, flag(false) // the script found that the caller may act on it
	}
	return nil, unavailable("the port goes from owner to owner", nil)
}

// anotherOwner reads the answer of a script that needs the key of another owner.
func anotherOwner(answer any) (owner string, isAnothers bool) {
	if parts, _ := answer.([]any); len(parts) == 2 && parts[0] == "owner" {
		owner, isAnothers = parts[1].(string)
	}
	return owner, isAnothers
}
