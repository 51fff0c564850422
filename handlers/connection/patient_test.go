package connection

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// failing is a listener that fails with one error after the other.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

// A listener outlives a lack of file descriptors, and ends for any other reason.
func TestPatient(t *testing.T) {
	l := &failing{errs: []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.EINVAL, nil}}
	if _, err := Patient(l).Accept(); !errors.Is(err, syscall.EINVAL) || len(l.errs) != 1 {
		t.Errorf("%v, with %d errors left", err, len(l.errs))
	}
}
