package allocator

import "math/rand/v2"

// trimming is how seldom an event drops those that are too old: each time would cost Redis a fifth of what an event does.
const trimming = 16

// withEvents returns the arguments of a script that writes events to the history of a service: two come first, as
// lua/parts/history.lua says.
func (a *Allocator) withEvents(caller Caller, args ...any) []any {
	keeps := any("")
	if a.opts.History == 0 || rand.IntN(trimming) == 0 {
		keeps = a.opts.History
	}
	return append(append(make([]any, 0, 4+len(args)), keeps, caller.RequestID), args...)
}
