package executor

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Info is what a node tells of itself. What the store does not tell is "", or 0.
type Info struct {
	EvictionPolicy string // maxmemory-policy
	Role           string // "master", "slave"
	AppendOnly     string // "1" with an append-only file, "0" without
	LastAppend     string // how the last write to that file ended: "ok", "err"
	Memory         int64  // bytes in use, counted as Redis does when it refuses a change
	MaxMemory      int64  // the limit; 0 if there is none
}

// Info asks each master of a Cluster, or the one there is. It needs no right to CONFIG. It returns what those tell that answer, and
// the error of one that does not.
func (e *Executor) Info(ctx context.Context) (nodes []Info, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.Timeout)
	defer cancel()
	var mu sync.Mutex
	err = e.eachMaster(ctx, func(ctx context.Context, node redis.UniversalClient) error {
		says, err := readInfo(ctx, node, "memory", "replication", "persistence")
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, parseInfo(says))
		return nil
	})
	return nodes, nothingDone(classify(err))
}

func parseInfo(says map[string]string) Info {
	var figures [3]int64
	for i, field := range []string{"used_memory", "mem_not_counted_for_evict", "maxmemory"} {
		figures[i], _ = strconv.ParseInt(says[field], 10, 64) // 0 if the store does not say
	}
	return Info{
		EvictionPolicy: says["maxmemory_policy"],
		Role:           says["role"],
		AppendOnly:     says["aof_enabled"],
		LastAppend:     says["aof_last_write_status"],
		Memory:         figures[0] - figures[1],
		MaxMemory:      figures[2],
	}
}

// readInfo reads sections of INFO. A section that the store does not have is missing from it.
func readInfo(ctx context.Context, node redis.UniversalClient, sections ...string) (map[string]string, error) {
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

// Connections are the figures of the connections to Redis.
type Connections struct {
	Idle, Used int
	Timeouts   int // how often a call waited for one in vain
	Broken     int // how many were found broken and closed
}

// Connections returns the figures so far.
func (e *Executor) Connections() Connections {
	s := e.client.PoolStats()
	return Connections{Idle: int(s.IdleConns), Used: int(s.TotalConns) - int(s.IdleConns), Timeouts: int(s.Timeouts), Broken: int(s.StaleConns)}
}
