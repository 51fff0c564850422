package storetest

import (
	"os/exec"
	"syscall"
)

// endWithThread lets the kernel end a process when the thread that starts it ends.
func endWithThread(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
