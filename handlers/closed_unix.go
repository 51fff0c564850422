//go:build unix && !linux

package handlers

import "syscall"

// closed reports of each socket whether the other end has closed it. Where bytes have come in before, it does not see that.
func closed(sockets []int) []bool {
	gone := make([]bool, len(sockets))
	for i, socket := range sockets {
		n, _, err := syscall.Recvfrom(socket, make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone[i] = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	}
	return gone
}
