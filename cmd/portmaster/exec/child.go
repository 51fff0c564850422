package exec

import (
	"errors"
	"io/fs"
	"os"
	osexec "os/exec"
	"runtime"
	"syscall"
)

// child is the command that runs.
type child struct {
	process *os.Process
	shares  terminal        // the terminal whose process group it shares with exec; none: it leads a group of its own
	exited  <-chan struct{} // closed when it has exited
	state   *os.ProcessState
}

// startChild starts the command at a path with exec's standard streams: no shell comes between.
func startChild(path string, args, env []string) (*child, error) {
	cmd := osexec.Cmd{Path: path, Args: args, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	shares := ownTerminal()
	cmd.SysProcAttr = attributes(shares)
	started, exited := make(chan error), make(chan struct{})
	c := &child{shares: shares, exited: exited}
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the child ends
		err := cmd.Start()
		c.process = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // the state says how it ended
			c.state = cmd.ProcessState
		}
		close(exited)
	}()
	return c, <-started
}

// exitCode is the child's, or 128 + n if signal n ended it. It has exited.
func (c *child) exitCode() int {
	if status, ok := c.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return c.state.ExitCode()
}

// Exit codes of shells for a command that could not be started.
const (
	codeCannotRun = 126
	codeNotFound  = 127
)

// codeOfStart is the exit code that a shell has for a command that was not found, or could not be started.
func codeOfStart(err error) int {
	if errors.Is(err, osexec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return codeNotFound
	}
	return codeCannotRun
}
