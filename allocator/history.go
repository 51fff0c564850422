package allocator

// withEvents returns the arguments of a script that writes events to the history of a service: these two come first. See
// lua/parts/history.lua.
func (a *Allocator) withEvents(caller Caller, args ...any) []any {
	return append(append(make([]any, 0, 4+len(args)), a.opts.History, caller.RequestID), args...)
}
