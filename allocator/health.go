package allocator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/epoch"
	"portmaster/allocator/executor"
	"portmaster/lua"
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

// IsWarning reports whether a Redis with the problem can still be used.
func (p Problem) IsWarning() bool { return p == Volatile || p == MemoryFull || p == MemoryLow }

// Finding is a problem that a check found.
type Finding struct {
	Problem Problem
	Detail  string // one sentence for operators
}

// Check asks Redis whether it is fit to keep allocations: each master of a Cluster, or the only one. It does not need the right to
// use CONFIG. It returns ErrUnavailable if Redis does not answer; of a Cluster, if no master does, since the pools of each are
// served by themselves.
func (a *Allocator) Check(ctx context.Context) (findings []Finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	nodes, err := a.executor.Info(ctx)
	if len(nodes) == 0 {
		return nil, translate(err)
	}
	for _, node := range nodes {
		findings = append(findings, a.judge(node)...)
	}
	if slices.ContainsFunc(findings, func(f Finding) bool { return f.Problem == NotMaster }) {
		return findings, nil // it takes no epoch
	}
	if err := a.epoch.Recall(ctx); err != nil && !a.executor.Clustered() {
		return nil, translate(err)
	}
	_ = a.epoch.CheckFences(ctx) // Fault tells what it finds
	if fault := a.epoch.Fault(); errors.Is(fault, epoch.ErrLost) {
		findings = append(findings, Finding{StateLost, fault.Error()})
	} else if fault != nil {
		findings = append(findings, Finding{OtherSchema, fault.Error()})
	}
	return findings, nil
}

// judge finds the problems of a node in its INFO.
func (a *Allocator) judge(node executor.Info) (findings []Finding) {
	if policy := node.EvictionPolicy; policy != "" && policy != "noeviction" {
		findings = append(findings, Finding{Evicts,
			"Redis may evict allocations: its maxmemory-policy is " + policy + ", and must be noeviction"})
	}
	if node.Role != "" && node.Role != "master" {
		findings = append(findings, Finding{NotMaster, "this Redis is no master, and takes no changes"})
	}
	if node.LastAppend != "" && node.LastAppend != "ok" {
		findings = append(findings, Finding{WriteFailed, "Redis could not write its append-only file"})
	}
	if !a.opts.AllowVolatile && node.AppendOnly == "0" { // a snapshot lacks what came after it
		findings = append(findings, Finding{Volatile, "Redis has no append-only file: when it crashes, it forgets what came after its " +
			"last snapshot, or everything if it saves none, and the ports are handed out again while their holders use them"})
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
		findings = append(findings, Finding{MemoryFull,
			"Redis is full (maxmemory): new offers, claims and definitions are refused, while holders can accept, renew and release"})
	}
	if used > most/100*memoryLow {
		findings = append(findings, Finding{MemoryLow, fmt.Sprintf(
			"Redis has used more than %d %% of its maxmemory; when it is full, it takes no new offers, claims and definitions", memoryLow)})
	}
	return findings
}

// Connections returns the figures of the connections to Redis.
func (a *Allocator) Connections() executor.Connections { return a.executor.Connections() }

// StateFigures tell what an Allocator has noticed of the state in Redis since it started.
type StateFigures = epoch.Figures

// StateFigures returns what was noticed so far.
func (a *Allocator) StateFigures() StateFigures { return a.epoch.Figures() }

// Greet makes a call that changes nothing, to learn whether Redis takes any. It has few words: Redis reads no more than ten from a
// client that has not logged in, and complains of their number if there are more. Then it finds out whether Redis lets this user
// write a history, if there is to be one: events that it refuses would be missing, and nobody would know.
func (a *Allocator) Greet(ctx context.Context) error {
	k := a.keys.Pool(DefaultPool)
	_, err := a.executor.Read(ctx, k.Call(lua.ReadAllocation, "none", "", "none", "none"))
	if err = translate(err); err != nil && !errors.Is(err, ErrServiceNotFound) {
		return err
	}
	if a.opts.History > 0 {
		_, err := a.executor.Write(ctx, k.Call(lua.TryHistory, "", ""))
		if refusal, ok := errors.AsType[redis.Error](err); ok && redis.HasErrorPrefix(refusal, "NOPERM") {
			return translate(err)
		}
	}
	return nil
}

// Recovery is what Recover found.
type Recovery struct {
	Needed bool // the state was lost; if it was not, nothing is changed
	epoch.Loss
	Held []Figures // of all services
}

// Recover makes the state that is in Redis now the one that counts, which ends the refusal to hand out ports. First it reads what is
// held, and raises the fences of all pools above those that servers reported.
func (a *Allocator) Recover(ctx context.Context) (found Recovery, err error) {
	if found.Loss, found.Needed, err = a.epoch.Lost(ctx); err != nil || !found.Needed {
		return found, translate(err)
	}
	pools, err := a.listedPools(ctx)
	if err != nil {
		return found, err
	}
	var unread int
	if found.Held, unread = a.readFigures(ctx, pools); unread > 0 {
		return found, unavailable(fmt.Sprintf("the services of %d pools could not be read", unread), nil)
	}
	return found, translate(a.epoch.Recover(ctx, found.Loss))
}
