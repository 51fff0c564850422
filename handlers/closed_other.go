//go:build !unix

package handlers

// closed would report of each socket whether the other end has closed it, and cannot here: who waits and hangs up keeps
// the place until the time is over.
func closed(sockets []int) []bool { return make([]bool, len(sockets)) }
