//go:build faults

package systemtest

import "syscall"

// terminate asks the program to end, with SIGTERM, and returns its exit code.
func (p *process) terminate() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.wait()
}

// pause stops the program where it is, with SIGSTOP: its connections stay open, and nothing answers.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
}

// resume lets a paused program go on.
func (p *process) resume() {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
}
