package allocator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
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
	var mu sync.Mutex
	answered := false
	err = a.eachMaster(ctx, func(ctx context.Context, node redis.UniversalClient) error {
		says, err := info(ctx, node, "memory", "replication", "persistence")
		mu.Lock()
		defer mu.Unlock()
		findings = append(findings, a.judge(says)...)
		answered = answered || err == nil
		return err
	})
	if !answered {
		return nil, nothingDone(classify(err))
	}
	if slices.ContainsFunc(findings, func(f Finding) bool { return f.Problem == NotMaster }) {
		return findings, nil // it cannot be marked
	}
	if err := a.recall(ctx, 0); err != nil && !a.clustered() {
		return nil, err
	}
	_ = a.checkFences(ctx, a.epoch.fences.some(jobsPerTrip)) // what it finds is told by the epoch
	if found, ok := a.epoch.finding(); ok {
		findings = append(findings, found)
	}
	return findings, nil
}

// judge finds the problems of a node by what its INFO says.
func (a *Allocator) judge(says map[string]string) (findings []Finding) {
	if policy, known := says["maxmemory_policy"]; known && policy != "noeviction" {
		findings = append(findings, Finding{Evicts, "Redis may evict allocations: its maxmemory-policy is " + policy + ", and must be noeviction"})
	}
	if role, known := says["role"]; known && role != "master" {
		findings = append(findings, Finding{NotMaster, "this Redis is no master, and takes no changes"})
	}
	if status, known := says["aof_last_write_status"]; known && status != "ok" {
		findings = append(findings, Finding{WriteFailed, "Redis could not write its append-only file"})
	}
	if !a.opts.AllowVolatile && says["aof_enabled"] == "0" { // a snapshot does not have what came after it
		findings = append(findings, Finding{Volatile, "Redis has no append-only file: when it crashes it forgets what came after its last snapshot, or all where it " +
			"saves none, and the ports are handed out again while their holders use them"})
	}
	return append(findings, judgeMemory(says)...)
}

// memoryLow is the percentage of maxmemory above which a warning is due.
const memoryLow = 90

// judgeMemory finds whether a node is full, or will be soon. Its memory is counted as Redis does when it refuses a change.
func judgeMemory(says map[string]string) (findings []Finding) {
	var figures [3]int64
	for i, field := range []string{"used_memory", "mem_not_counted_for_evict", "maxmemory"} {
		figures[i], _ = strconv.ParseInt(says[field], 10, 64) // 0 where the store does not say
	}
	used, most := figures[0]-figures[1], figures[2]
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

// info reads sections of INFO. A section that the store does not have is missing from it.
func info(ctx context.Context, node redis.UniversalClient, sections ...string) (map[string]string, error) {
	pipeline := node.Pipeline()
	for _, section := range sections {
		pipeline.Info(ctx, section)
	}
	replies, _ := pipeline.Exec(ctx)
	says := map[string]string{}
	for _, reply := range replies {
		text, err := reply.(*redis.StringCmd).Result()
		if err != nil && (!isReply(err) || turnedAway(err.Error())) {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if field, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				says[field] = value
			}
		}
	}
	return says, nil
}

func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}
