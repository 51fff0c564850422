package allocator

import (
	"context"
	"fmt"
	"slices"

	"portmaster/allocator/executor"
)

// Problem is something that makes a Redis unfit to keep allocations, although it answers.
type Problem string

// The problems.
const (
	Evicts      Problem = "evicts"       // it may drop keys when its memory runs out
	NotMaster   Problem = "not_master"   // it is a replica
	WriteFailed Problem = "write_failed" // it could not write its append-only file
	StateLost   Problem = "state_lost"   // the state that was there is gone, or older, and nobody has recovered it yet
	OtherSchema Problem = "schema_newer" // a newer server keeps its state there, in another form
	Volatile    Problem = "volatile"     // it has no append-only file: a warning
	MemoryFull  Problem = "memory_full"  // it has no memory left: a warning, since holders can still renew and release
	MemoryLow   Problem = "memory_low"   // it has used most of its memory, or all: a warning
)

// Problems are all of them.
var Problems = []Problem{Evicts, NotMaster, WriteFailed, StateLost, OtherSchema, Volatile, MemoryFull, MemoryLow}

// IsWarning reports whether a Redis with the problem is still to be used.
func (p Problem) IsWarning() bool { return p == Volatile || p == MemoryFull || p == MemoryLow }

// Finding is a problem that a check found.
type Finding struct {
	Problem Problem
	Detail  string // one sentence for operators
}

// Check asks Redis whether it is fit to keep allocations: each master of a Cluster, or the one there is. It needs no right
// to CONFIG. It returns ErrUnavailable where Redis does not answer. A Cluster does while one of its masters does: the pools
// of the others are served.
func (a *Allocator) Check(ctx context.Context) (findings []Finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	nodes, err := a.executor.Info(ctx)
	if len(nodes) == 0 {
		return nil, fromExecutor(err)
	}
	for _, node := range nodes {
		findings = append(findings, a.judge(node)...)
	}
	if slices.ContainsFunc(findings, func(f Finding) bool { return f.Problem == NotMaster }) {
		return findings, nil // it takes no epoch
	}
	if err := a.recall(ctx); err != nil && !a.executor.Clustered() {
		return nil, err
	}
	_ = a.checkFences(ctx, a.epoch.fences.some(callsPerBatch)) // what it finds is told by the epoch
	if found, ok := a.epoch.finding(); ok {
		findings = append(findings, found)
	}
	return findings, nil
}

// judge finds the problems of a node by what it tells of itself.
func (a *Allocator) judge(node executor.Info) (findings []Finding) {
	if policy := node.EvictionPolicy; policy != "" && policy != "noeviction" {
		findings = append(findings, Finding{Evicts, "Redis may evict allocations: its maxmemory-policy is " + policy + ", and must be noeviction"})
	}
	if node.Role != "" && node.Role != "master" {
		findings = append(findings, Finding{NotMaster, "this Redis is no master, and takes no changes"})
	}
	if node.LastAppend != "" && node.LastAppend != "ok" {
		findings = append(findings, Finding{WriteFailed, "Redis could not write its append-only file"})
	}
	if !a.opts.AllowVolatile && node.AppendOnly == "0" { // a snapshot does not have what came after it
		findings = append(findings, Finding{Volatile, "Redis has no append-only file: when it crashes it forgets what came after its last snapshot, or all where it " +
			"saves none, and the ports are handed out again while their holders use them"})
	}
	return append(findings, judgeMemory(node.Memory, node.MaxMemory)...)
}

// memoryLow is the percentage of maxmemory above which a warning is due.
const memoryLow = 90

// judgeMemory finds whether a node is full, or will be soon.
func judgeMemory(used, most int64) (findings []Finding) {
	if most <= 0 {
		return nil
	}
	if used >= most {
		findings = append(findings, Finding{MemoryFull, "Redis is full (maxmemory): new offers, claims and definitions are refused, while holders can accept, renew and release"})
	}
	if used > most/100*memoryLow {
		findings = append(findings, Finding{MemoryLow, fmt.Sprintf("Redis has used more than %d %% of its maxmemory; when it is full, it takes no new offers, claims and definitions", memoryLow)})
	}
	return findings
}

// Connections returns the figures of the connections to Redis.
func (a *Allocator) Connections() executor.Connections { return a.executor.Connections() }
