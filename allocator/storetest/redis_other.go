//go:build !linux

package storetest

import "os/exec"

// endWithThread does nothing: a process outlives a test process that is killed.
func endWithThread(*exec.Cmd) {}
