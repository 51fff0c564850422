//go:build unix && !linux

package connection

import "syscall"

// closed reports for each socket whether the other end has closed it. It does not see that behind unread bytes.
func closed(sockets []int) []bool {
	gone := make([]bool, len(sockets))
	for i, socket := range sockets {
		n, _, err := syscall.Recvfrom(socket, make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone[i] = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	}
	return gone
}
