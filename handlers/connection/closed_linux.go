package connection

import (
	"errors"

	"golang.org/x/sys/unix"
)

// closed reports for each socket whether the other end has closed it, or has closed it for writing. It sees that even
// behind bytes that nobody has read yet.
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
