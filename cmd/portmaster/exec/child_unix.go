//go:build unix

package exec

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that exec passes on to its child.
var passedOn = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
}

// ignored are the signals that this program was started to ignore, as by nohup, or by a script that put it into the background. The
// program catches some of them as soon as it runs, so they are looked at before.
var ignored = slices.DeleteFunc(slices.Clone(passedOn), func(s os.Signal) bool { return !signal.Ignored(s) })

// catch returns a channel of the signals that are passed on, which are not those that exec and its child ignore. exec outlives what
// reads its messages, so SIGPIPE is caught; the child does not inherit that.
func catch() <-chan os.Signal {
	caught := make(chan os.Signal, 16)
	for _, s := range passedOn {
		if slices.Contains(ignored, s) {
			signal.Ignore(s)
		} else {
			signal.Notify(caught, s)
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return caught
}

// terminal is the file descriptor of a terminal that controls exec, and may so send signals to its process group.
type terminal int

const noTerminal terminal = -1

// ownTerminal returns the terminal of a standard stream, if it controls exec.
func ownTerminal() terminal {
	for stream := range terminal(3) {
		if _, err := stream.foreground(); err == nil {
			return stream
		}
	}
	return noTerminal
}

// foreground returns the process group that reads from the terminal, and that gets the signals of its keys.
func (t terminal) foreground() (group int, err error) {
	return unix.IoctlGetInt(int(t), unix.TIOCGPGRP)
}

// sends reports whether the terminal sends a signal to the child as well, because a key did.
func (t terminal) sends(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	group, err := t.foreground()
	return err == nil && group == unix.Getpgrp()
}

// attributes puts a child that shares no terminal into a process group of its own.
func attributes(shares terminal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: shares == noTerminal}
	endWithThread(attr)
	return attr
}

// pass passes on a signal that exec got.
func (c *child) pass(s os.Signal) {
	if !c.shares.sends(s) {
		c.signal(s.(syscall.Signal))
	}
}

func (c *child) terminate() { c.signal(syscall.SIGTERM) }
func (c *child) kill()      { c.signal(syscall.SIGKILL) }

// signal signals the child and the processes that it started: its group, or, if exec itself is in that group, its descendants.
func (c *child) signal(s syscall.Signal) {
	if c.shares == noTerminal {
		_ = syscall.Kill(-c.process.Pid, s) // it fails if all have exited
		return
	}
	found := descendants(c.process.Pid, parents()) // as long as their parents live
	_ = c.process.Signal(s)
	for _, pid := range found {
		_ = syscall.Kill(pid, s)
	}
}

// descendants returns the children of a process, their children, and so on.
func descendants(pid int, parents map[int]int) (found []int) {
	for child, parent := range parents {
		if parent == pid {
			found = append(append(found, child), descendants(child, parents)...)
		}
	}
	return found
}
