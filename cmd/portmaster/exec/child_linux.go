package exec

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// endWithThread has the kernel send SIGTERM to the child when the thread that starts it ends, as when exec is killed.
func endWithThread(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }

// parents returns the parent of each process.
func parents() map[int]int {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc") // without it only the child itself gets a signal
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + entry.Name() + "/stat") // pid (name) state parent ...
		var state string
		var parent int
		if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent); err == nil {
			parents[pid] = parent
		}
	}
	return parents
}
