package exec

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// checks are the protocols that a bind check tries: "tcp", "udp", both, or none.
type checks []string

// parseChecks reads the flag --check: a list of tcp and udp, or none.
func parseChecks(text string) (checks, error) {
	if text == "none" {
		return nil, nil
	}
	var protocols checks
	for _, protocol := range strings.Split(text, ",") {
		if protocol != "tcp" && protocol != "udp" {
			return nil, fmt.Errorf("--check: %q is neither a list of tcp and udp nor none", text)
		}
		if !slices.Contains(protocols, protocol) {
			protocols = append(protocols, protocol)
		}
	}
	return protocols, nil
}

// hosts are the addresses that a bind check tries. The wildcard alone, which is IPv4 and IPv6 in one, finds every occupant on
// Linux. On macOS and Windows it can be bound beside a socket that has only one address of the machine.
var hosts = [...]string{"", "127.0.0.1", "::1"}

// occupied returns the first protocol and port, such as "tcp 5000", that something on this machine has among count ports from
// first on, or "" if all are free. A port of connections in TIME_WAIT is free, and so is one that a socket with SO_REUSEADDR is
// bound to and does not listen on. A port that the check may not bind, below 1024, passes: the command may have rights that
// exec lacks.
func (c checks) occupied(first, count int) (string, error) {
	for port := first; port < first+count; port++ {
		for _, protocol := range c {
			for _, host := range hosts {
				err := tryBind(protocol, net.JoinHostPort(host, strconv.Itoa(port)))
				switch {
				case isOccupied(err):
					return protocol + " " + strconv.Itoa(port), nil
				case err == nil, isNoAddress(err), errors.Is(err, syscall.EACCES):
				default: // such as no file descriptor: nothing is known of the port
					return "", fmt.Errorf("cannot check port %d: %w", port, err)
				}
			}
		}
	}
	return "", nil
}

// tryBind binds a socket and closes it.
func tryBind(protocol, address string) error {
	var socket io.Closer
	var err error
	if protocol == "tcp" {
		socket, err = net.Listen("tcp", address)
	} else {
		socket, err = net.ListenPacket("udp", address)
	}
	if err != nil {
		return err
	}
	return socket.Close()
}
