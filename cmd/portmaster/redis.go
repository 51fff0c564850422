package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
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
		return nil, urlError(err)
	}
	log.Info("state is kept in Redis", slog.String("address", options.Addr), slog.Int("db", options.DB))
	return &store{client: redis.NewClient(connect(options, settings))}, nil
}

// connect completes the options of a client: it fails fast, and never repeats a command by itself.
func connect(options *redis.Options, settings config.Config) *redis.Options {
	options.MaxRetries = -1
	options.DialerRetries = 1
	options.DialTimeout = settings.RedisTimeout
	options.ReadTimeout = settings.RedisTimeout
	options.WriteTimeout = settings.RedisTimeout
	options.PoolTimeout = settings.RedisTimeout
	options.ContextTimeoutEnabled = true
	return options
}

// urlError names the variable, and leaves the URL out, which may hold a password.
func urlError(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		err = parse.Err
	}
	return fmt.Errorf("%s_REDIS_URL is not valid: %w", config.Prefix, err)
}

// embeddedTick is how often the embedded store, whose time does not move by itself, deletes keys that ran out.
const embeddedTick = 100 * time.Millisecond

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
