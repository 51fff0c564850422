//go:build unix

package exec

import (
	"errors"
	"syscall"
)

// isOccupied reports whether a bind failed because a socket has the port.
func isOccupied(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// isNoAddress reports whether a bind failed because the machine has no such address: it lacks IPv6, or IPv4.
func isNoAddress(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
