//go:build !unix

package connection

// closed would report for each socket whether the other end has closed it. Here it cannot tell: a call that waits keeps its
// position until its time is over, even if its client is gone.
func closed(sockets []int) []bool { return make([]bool, len(sockets)) }
