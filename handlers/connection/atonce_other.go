//go:build !unix

package connection

import (
	"net"
	"os"
)

// readAtOnce would read what has arrived on a connection. Here it cannot tell.
func readAtOnce(net.Conn, []byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// writeAtOnce is not called, since nothing is read at once.
func writeAtOnce(net.Conn, []byte) (int, error) { return 0, os.ErrDeadlineExceeded }
