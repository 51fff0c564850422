package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

// The one socket of a server that has its store inside is the one where it serves: nobody else can reach the store.
func TestEmbeddedStoreHasNoSocket(t *testing.T) {
	p := startProgram(t)
	descriptors, err := filepath.Glob("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, descriptor := range descriptors {
		if target, _ := os.Readlink(descriptor); strings.HasPrefix(target, "socket:") {
			sockets++
		}
	}
	if sockets != 1 {
		t.Errorf("the server has %d sockets before anybody called it", sockets)
	}
}

func newEmbedded(t *testing.T) redis.UniversalClient {
	t.Helper()
	s, err := embeddedStore(config.Config{RedisTimeout: patience}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.client
}

// A script tells subscribers on other connections, and does not wait for those that are slow to read.
func TestEmbeddedStoreDeliversMessages(t *testing.T) {
	client := newEmbedded(t)
	subscription := client.Subscribe(t.Context(), "portmaster:news")
	defer subscription.Close()
	if _, err := subscription.Receive(t.Context()); err != nil { // it is subscribed from here on
		t.Fatal(err)
	}
	const messages = 2000
	publish := `for i = 1, tonumber(ARGV[1]) do redis.call('PUBLISH', 'portmaster:news', 'news ' .. i) end`
	if err := client.Eval(t.Context(), publish, nil, messages).Err(); err != nil && err != redis.Nil {
		t.Fatal(err)
	}
	for i := range messages {
		message, err := subscription.ReceiveMessage(t.Context())
		if want := fmt.Sprintf("news %d", i+1); err != nil || message.Payload != want {
			t.Fatalf("it got %v, %v, want %s", message, err, want)
		}
	}
}

// A client sends its pipeline to the end before it reads: here 10 MB, of which each answer is as long as its call.
func TestEmbeddedStoreTakesALongPipeline(t *testing.T) {
	client := newEmbedded(t)
	long := strings.Repeat("x", 10_000)
	pipeline := client.Pipeline()
	var replies []*redis.StringCmd
	for range 1000 {
		replies = append(replies, pipeline.Echo(t.Context(), long))
	}
	if _, err := pipeline.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, reply := range replies {
		if reply.Val() != long {
			t.Fatalf("answer %d has %d bytes", i, len(reply.Val()))
		}
	}
}
