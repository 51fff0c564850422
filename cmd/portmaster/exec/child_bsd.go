//go:build unix && !linux

package exec

import (
	"bytes"
	"fmt"
	osexec "os/exec"
	"syscall"
)

// endWithThread does nothing: the child outlives exec if that is killed.
func endWithThread(*syscall.SysProcAttr) {}

// parents returns the parent of each process.
func parents() map[int]int {
	parents := map[int]int{}
	table, _ := osexec.Command("ps", "-A", "-o", "pid=,ppid=").Output() // without it only the child itself gets a signal
	for line := range bytes.Lines(table) {
		var pid, parent int
		if _, err := fmt.Sscan(string(line), &pid, &parent); err == nil {
			parents[pid] = parent
		}
	}
	return parents
}
