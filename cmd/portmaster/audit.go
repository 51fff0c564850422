package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"portmaster/config"
	"portmaster/handlers"
)

// audit is where the lines go that tell who did what.
type audit struct {
	handlers.Audit
	file *auditFile // nil: to where the log goes
}

// openAudit opens the audit as set. It has a level of its own: that of the log does not count.
func openAudit(settings config.Config) (audit, error) {
	if settings.Audit == config.AuditOff {
		return audit{}, nil
	}
	var out io.Writer = os.Stderr
	var file *auditFile
	if settings.AuditFile != "" {
		var err error
		if file, err = openAuditFile(settings.AuditFile); err != nil {
			return audit{}, fmt.Errorf("%s_AUDIT_FILE: %w", config.Prefix, err)
		}
		out = file
	}
	settings.LogLevel = slog.LevelInfo
	return audit{handlers.Audit{Log: newLogger(out, settings), Refusals: settings.Audit == config.AuditRefusals}, file}, nil
}

// follow opens the file anew at each SIGHUP, until ctx ends. Without a file SIGHUP ends the program, as it does by default.
func (a audit) follow(ctx context.Context, log *slog.Logger) {
	if a.file == nil {
		return
	}
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
		}
		if err := a.file.reopen(); err != nil {
			log.Error("the audit file cannot be opened anew; lines go to the one from before", slog.Any("error", err))
		} else {
			log.Info("the audit file was opened anew")
		}
	}
}

// metrics returns what is to be shown of the audit.
func (a audit) metrics() []prometheus.Collector {
	if a.file == nil {
		return nil
	}
	return []prometheus.Collector{a.file.lost}
}

// auditFile is a file to which lines are appended. Nothing that fails here stops a call: lost lines are counted.
type auditFile struct {
	path string
	lost prometheus.Counter

	mu   sync.Mutex
	file *os.File
	torn bool // the last line is not whole
}

func openAuditFile(path string) (*auditFile, error) {
	file, err := appendTo(path)
	return &auditFile{path: path, file: file, lost: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "portmaster_audit_lost_lines_total",
		Help: "Lines that could not be written to the audit file, such as when the disk was full.",
	})}, err
}

// appendTo opens a regular file, which need not exist. A pipe without a reader would block.
func appendTo(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
}

// Write appends a line, in one write.
func (f *auditFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := line
	if f.torn {
		whole = append([]byte{'\n'}, line...)
	}
	n, err := f.file.Write(whole)
	if n > 0 {
		f.torn = n < len(whole)
	}
	if err != nil {
		f.lost.Inc()
	}
	return len(line), err
}

// reopen opens the path anew, after the file was moved away.
func (f *auditFile) reopen() error {
	file, err := appendTo(f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.file
	f.file, f.torn = file, false
	f.mu.Unlock()
	return old.Close()
}
