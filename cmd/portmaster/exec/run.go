package exec

import (
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"slices"
	"syscall"
	"time"

	"portmaster/cmd/portmaster/cli"
)

// interrupted is why a wait for ports ended: exec got a signal.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return "interrupted: " + i.signal.String() }

// exitCode is 128 + n, as for a command that the signal ended.
func (i interrupted) exitCode() int {
	number, _ := i.signal.(syscall.Signal)
	return codeSignal + int(number)
}

// run gets the ports, runs the command, and gives the ports back. Its error is a *cli.Exit.
func run(ctx context.Context, o options) error {
	path, err := osexec.LookPath(o.command[0])
	if err != nil { // it would need no port
		return &cli.Exit{Code: codeOfStart(err), Err: err}
	}
	say := &messages{waiting: cli.NewProgress(os.Stderr)}
	h := &holder{options: o, say: say, lost: make(chan loss, len(o.ports))}
	if h.client, err = o.newClient(h.retrying); err != nil {
		return &cli.Exit{Code: codeFailed, Err: err}
	}
	signals := catch()
	if err := h.acquireOr(ctx, signals); err != nil {
		return err
	}
	c, err := startChild(path, fillIn(o.command, h.ports), append(os.Environ(), environment(h.ports)...))
	if err != nil {
		h.release()
		return &cli.Exit{Code: codeOfStart(err), Err: err}
	}
	code := supervise(c, h, signals)
	h.warnOfDaemons()
	h.release()
	if code != 0 {
		return &cli.Exit{Code: code}
	}
	return nil
}

// acquireOr acquires the ports, unless a signal comes or a port is lost meanwhile. Then it gives back what it has.
func (h *holder) acquireOr(ctx context.Context, signals <-chan os.Signal) error {
	// A signal ends the program's context too, which is not for the command.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	acquired := make(chan error, 1)
	go func() { acquired <- h.acquire(ctx) }()
	for {
		select {
		case s := <-signals:
			if context.Cause(ctx) != nil { // it is giving back, and that is taking too long
				return &cli.Exit{Code: interrupted{s}.exitCode()}
			}
			cancel(interrupted{s})
		case l := <-h.lost:
			cancel(l)
		case err := <-acquired:
			if err == nil && ctx.Err() == nil {
				return nil
			}
			h.release()
			if i, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
				return &cli.Exit{Code: i.exitCode()}
			}
			if l, ok := errors.AsType[loss](context.Cause(ctx)); ok {
				return &cli.Exit{Code: codeLost, Err: l}
			}
			return &cli.Exit{Code: codeFailed, Err: err}
		}
	}
}

// supervise passes signals on to the child, and stops it if a port is lost, until it has exited. It returns the exit code of exec.
func supervise(c *child, h *holder, signals <-chan os.Signal) (code int) {
	var grace <-chan time.Time // nil until the child is told to stop
	for {
		select {
		case <-c.exited:
			if grace != nil {
				return codeLost
			}
			return c.exitCode()
		case s := <-signals:
			c.pass(s)
		case l := <-h.lost:
			if h.warn {
				h.say.line("%v; %s goes on", l, h.command[0])
			} else if grace == nil {
				h.say.line("%v; stopping %s", l, h.command[0])
				c.terminate()
				grace = time.After(h.grace)
			}
		case <-grace:
			c.kill()
			grace = make(chan time.Time) // not again
		}
	}
}

// daemonPatience is how long the last processes of a command have to close its ports.
const daemonPatience = time.Second

// warnOfDaemons says which ports are in use although the command has exited: they are released as such. A port that is lost may be
// somebody else's.
func (h *holder) warnOfDaemons() {
	left := slices.DeleteFunc(slices.Clone(h.keeping), (*lease).isOver)
	for began := time.Now(); ; time.Sleep(daemonPatience / 10) {
		left = slices.DeleteFunc(left, func(l *lease) bool {
			occupied, err := h.checks.occupied(l.allocation.Port, l.allocation.Count)
			return occupied == "" || err != nil
		})
		if len(left) == 0 || time.Since(began) >= daemonPatience {
			break
		}
	}
	for _, l := range left {
		l.inUse = true
		h.say.line("%s has exited, and port %d of %s is still in use: did it leave a daemon behind?", h.command[0], l.allocation.Port,
			l.allocation.Service)
	}
}
