//go:build !linux

package processes

import "syscall"

// endWithThread does nothing: a process outlives a test process that is killed.
func endWithThread(*syscall.SysProcAttr) {}
