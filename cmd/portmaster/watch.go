package main

import (
	"context"
	"log/slog"
	"time"

	"portmaster/allocator"
)

// watchInterval is how often the server checks Redis, and so how soon it notices that the state is gone.
const watchInterval = time.Second

// watch checks until ctx is done whether Redis can keep allocations safely, and logs what changes.
func watch(ctx context.Context, ports *allocator.Allocator, log *slog.Logger) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	known := map[allocator.Finding]bool{}
	var figures allocator.StateFigures
	for {
		if findings, err := ports.Check(ctx); err == nil {
			known = tell(log, known, findings)
		}
		figures = tellState(log, figures, ports.StateFigures())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tellState logs what has changed in the state figures.
func tellState(log *slog.Logger, known, now allocator.StateFigures) allocator.StateFigures {
	if now.Rollbacks > known.Rollbacks {
		log.Warn("the state in Redis is older than what was acknowledged, as after a failover: the server raised the fences and continues",
			slog.Duration("behind", now.Behind))
	}
	if now.ClockSteps > known.ClockSteps {
		log.Warn("the clock of Redis stepped", slog.Duration("by", now.ClockStep))
	}
	return now
}

// tell logs the findings that are new and those that are gone. It returns the current ones.
func tell(log *slog.Logger, known map[allocator.Finding]bool, findings []allocator.Finding) map[allocator.Finding]bool {
	now := map[allocator.Finding]bool{}
	for _, f := range findings {
		now[f] = true
		if known[f] {
			continue
		}
		if f.Problem.IsWarning() {
			log.Warn(f.Detail, slog.String("problem", string(f.Problem)))
		} else {
			log.Error("not ready: "+f.Detail, slog.String("problem", string(f.Problem)))
		}
	}
	for f := range known {
		if !now[f] {
			log.Info("solved: "+f.Detail, slog.String("problem", string(f.Problem)))
		}
	}
	return now
}
