package exec

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isOccupied reports whether a bind failed because a socket has the port, maybe for itself alone, or Windows keeps it.
func isOccupied(err error) bool {
	return errors.Is(err, windows.WSAEADDRINUSE) || errors.Is(err, windows.WSAEACCES)
}

// isNoAddress reports whether a bind failed because the machine has no such address: it lacks IPv6, or IPv4.
func isNoAddress(err error) bool {
	return errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)
}
