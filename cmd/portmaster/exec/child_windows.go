package exec

import (
	"os"
	"os/signal"
	"syscall"
)

// catch returns a channel of what the console sends: it sends it to the child as well.
func catch() <-chan os.Signal {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, os.Interrupt, syscall.SIGTERM)
	return caught
}

// terminal is the console.
type terminal struct{}

func ownTerminal() terminal { return terminal{} }

func attributes(terminal) *syscall.SysProcAttr { return nil }

// pass does nothing: the console has told the child.
func (c *child) pass(os.Signal) {}

// terminate ends the child at once: Windows has no signal that asks it to.
func (c *child) terminate() { c.kill() }
func (c *child) kill()      { _ = c.process.Kill() }
