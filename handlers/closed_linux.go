package handlers

import (
	"errors"

	"golang.org/x/sys/unix"
)

// closed reports of each socket whether the other end has closed it, be it for sending only, and though bytes may have come
// in before that nobody has read.
func closed(sockets []int) []bool {
	polled := make([]unix.PollFd, len(sockets))
	for i, socket := range sockets {
		polled[i] = unix.PollFd{Fd: int32(socket), Events: unix.POLLRDHUP}
	}
	for {
		if _, err := unix.Poll(polled, 0); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	gone := make([]bool, len(sockets))
	for i, p := range polled {
		gone[i] = p.Revents != 0
	}
	return gone
}
