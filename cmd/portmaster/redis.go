package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

// store is the Redis that a server works on.
type store struct {
	client   *redis.Client
	embedded *miniredis.Miniredis // nil where the Redis is a real one
	stop     chan struct{}        // ends the embedded store's clock
}

// openStore connects to the Redis of the settings, or starts one inside the process where they name none. It does not
// wait for Redis: /readyz tells whether it is there.
func openStore(settings config.Config, log *slog.Logger) (*store, error) {
	if settings.RedisURL == "" {
		return embeddedStore(settings, log)
	}
	options, err := redis.ParseURL(string(settings.RedisURL))
	if err != nil {
		return nil, errURL
	}
	log.Info("state is kept in Redis", slog.String("address", options.Addr), slog.Int("db", options.DB))
	return &store{client: redis.NewClient(connect(options, settings))}, nil
}

// connect completes the options of a client: it fails fast, and never repeats a command by itself.
func connect(options *redis.Options, settings config.Config) *redis.Options {
	options.Protocol = 2 // nothing of version 3 is used here, and looking for its push messages costs each call
	options.MaxRetries = -1
	options.DialerRetries = 1
	options.DialTimeout = settings.RedisTimeout
	options.ReadTimeout = settings.RedisTimeout
	options.WriteTimeout = settings.RedisTimeout
	options.PoolTimeout = settings.RedisTimeout
	options.ContextTimeoutEnabled = true
	return options
}

// errURL leaves out the URL and what the parser says of it: a password with a slash in it may be what does not parse.
var errURL = errors.New(config.Prefix + "_REDIS_URL is not valid: it must read redis://[user:password@]host:port[/db], " +
	"the password in percent-encoding, and any ?option=value one that the client knows")

// clientLog takes the lines that go-redis writes by itself, one for each connection that fails. Our own log tells of an
// outage once a second at most; these are for who debugs.
type clientLog struct{ log *slog.Logger }

// Printf is called by go-redis.
func (c clientLog) Printf(ctx context.Context, format string, args ...any) {
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.DebugContext(ctx, "redis client", slog.String("says", fmt.Sprintf(format, args...)))
	}
}

// embeddedTick is how often the TTLs of the embedded store move, which do not by themselves. A key may go so much early.
const embeddedTick = 20 * time.Millisecond

func embeddedStore(settings config.Config, log *slog.Logger) (*store, error) {
	embedded, err := miniredis.Run()
	if err != nil {
		return nil, fmt.Errorf("the embedded store does not start: %w", err)
	}
	log.Warn("state is kept inside this process and ends with it: set " + config.Prefix + "_REDIS_URL to keep it in Redis")
	s := &store{
		client:   redis.NewClient(connect(&redis.Options{Addr: embedded.Addr()}, settings)),
		embedded: embedded,
		stop:     make(chan struct{}),
	}
	go s.tick()
	return s, nil
}

// tick moves the time of the embedded store's TTLs.
func (s *store) tick() {
	ticker := time.NewTicker(embeddedTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			s.embedded.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Close ends the connections, and the embedded store with all it holds.
func (s *store) Close() {
	s.client.Close()
	if s.embedded != nil {
		close(s.stop)
		s.embedded.Close()
	}
}
