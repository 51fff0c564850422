package processes

import "syscall"

// endWithThread lets the kernel end a process when the thread that starts it ends.
func endWithThread(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
