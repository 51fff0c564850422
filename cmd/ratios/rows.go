package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"portmaster/allocator"
)

// connections is how many clients make the load.
const connections = 64

var rows = []row{
	{"CPU per request of offer-accept-release, server and Redis, to that of the plain route", 3.3, "us", cycleToPlain},
	{"Redis CPU of a call of the cycle, among those of 64 clients, to that of `return 1`", 4.5, "us", scriptsToReturn1},
	{"Redis CPU that events of the history add to the cycle (percent)", 8, "", historyCost},
	{"Redis CPU of an offer where 48,000 ports are taken to one where none is", 1.3, "us", fullToEmpty},
	{"Redis CPU of defining a service of 48,000 ports to one of 10", 1.5, "us", largeToSmall},
	{"Redis CPU of claiming 4 ports in a row of 48,000 in pieces to that of 1,000 in one piece", 2, "us", piecesToWhole},
	{"Redis CPU of the most expensive script, a claim of 256 scattered ports, to that of an offer", 200, "us", worstToOffer},
	{"Redis CPU of refusing to cut 48,000 ports that were handed out, of which one is held, to that of an offer", 20, "us", refusedToOffer},
	{"Redis CPU of a scrape of 10,000 services, for each of them, to that of an offer", 0.7, "us", scrapeToOffer},
	{"Redis CPU while 1,000 lines wait on three servers and nothing happens (percent of a core)", 2, "", waitingCPU},
	{"p99 from a release to the next in each of these lines to p99 of a release and a claim", 3, "ms", handOver},
	{"p99 to p50 of the cycle", 2.5, "ms", p99ToP50},
	{"p99 of offers while 40,000 allocations are listed again and again to p99 without", 3, "ms", listedToAlone},
	{"Redis memory per allocation, at 40,000 (bytes)", 350, "", memoryPerAllocation},
	{"CPU of a token, per request (us)", 1, "", tokenCost},
	{"one lone client: p50 of an offer to p50 of the plain route and of a PING together", 1.5, "us", loneClient},
}

func cycleToPlain(b *bench) (float64, float64, error) {
	before := cpu(b.plain)
	calls, err := b.loadOf(connections, b.plainCall)
	if err != nil {
		return 0, 0, err
	}
	plain := (cpu(b.plain) - before) / calls
	both := cpu(b.server) + cpu(b.redis)
	cycle, err := b.load(connections)
	if err != nil {
		return 0, 0, err
	}
	return (cpu(b.server) + cpu(b.redis) - both) / cycle.Requests, plain, nil
}

// scriptsToReturn1 compares a call of the cycle, in the scripts that 64 clients have run, with as many that do nothing.
func scriptsToReturn1(b *bench) (float64, float64, error) {
	const pool, service, calls = "scripts", "recorded", 4 * connections
	var secrets [calls]string
	steps, err := b.record(
		func(ports *allocator.Allocator) error {
			_, _, err := ports.Define(background, allocator.Caller{}, pool, allocator.Definition{Name: service, Start: 10_000, End: 19_999})
			return err
		},
		func(ports *allocator.Allocator) error {
			return concurrently(calls, func(i int) error {
				offers, _, err := ports.Offer(background, allocator.Caller{}, pool, service, []allocator.Request{{Name: holder(i)}}, allocator.Wait{})
				if err == nil {
					secrets[i] = offers[0].Secret
				}
				return err
			})
		},
		func(ports *allocator.Allocator) error {
			return concurrently(calls, func(i int) error {
				_, _, err := ports.Accept(background, allocator.Caller{}, pool, service, secrets[i], nil)
				return err
			})
		},
		func(ports *allocator.Allocator) error {
			return concurrently(calls, func(i int) error {
				return ports.Release(background, allocator.Caller{}, pool, service, holder(i), allocator.Proof{})
			})
		})
	if err != nil {
		return 0, 0, err
	}
	one, err := b.client.ScriptLoad(background, "return 1").Result()
	if err != nil {
		return 0, 0, err
	}
	nothing := slices.Repeat([][]any{{"evalsha", one, 0}}, calls)
	costs, err := b.replay(steps[1], steps[2], steps[3], nothing)
	if err != nil {
		return 0, 0, err
	}
	cycle := 0.0
	for i, step := range steps[1:] {
		cycle += costs[i] * float64(len(step)) / calls
	}
	return cycle / 3, costs[3], nil
}

// fullToEmpty compares offers of a service of which 48,000 ports are allocated with those of one where none is.
func fullToEmpty(b *bench) (float64, float64, error) {
	const taken = 48_000
	if err := b.fill("full", 1024, 50_000, taken); err != nil {
		return 0, 0, err
	}
	full, err := b.offers("full")
	if err != nil {
		return 0, 0, err
	}
	empty, err := b.plainOffer()
	return full, empty, err
}

// offers returns the processor time of an offer in a pool's service "filled".
func (b *bench) offers(pool string) (float64, error) {
	secrets := make([]string, batch)
	return b.cost(
		func(ports *allocator.Allocator) error { return offerBatch(ports, pool, "filled", secrets) },
		func(ports *allocator.Allocator) error {
			return forBatch(func(i int) error {
				_, err := ports.Reject(background, allocator.Caller{}, pool, "filled", secrets[i], false)
				return err
			})
		})
}

// piecesToWhole compares claims of blocks where 6,000 holders have left 42,000 ports in pieces of 7 with those where nobody
// holds any. Either way ports that were given back have to be gathered.
func piecesToWhole(b *bench) (float64, float64, error) {
	const ports, apart = 48_000, 8
	s, _, err := b.ports.Define(background, allocator.Caller{}, "pieces", allocator.Definition{Name: "filled", Start: 1024, End: 1024 + ports - 1})
	if err == nil && s.Ports.Allocated == 0 {
		if err = b.fill("pieces", 1024, 1024+ports-1, ports); err == nil {
			err = concurrently(ports, func(i int) error {
				if i%apart == 0 {
					return nil
				}
				return b.ports.Release(background, allocator.Caller{}, "pieces", "filled", strconv.Itoa(1024+i), allocator.Proof{})
			})
		}
	}
	if err != nil {
		return 0, 0, err
	}
	if _, _, err := b.ports.Define(background, allocator.Caller{}, "whole", allocator.Definition{Name: "filled", Start: 1024, End: 2023}); err != nil {
		return 0, 0, err
	}
	pieces, err := b.blocks("pieces")
	if err != nil {
		return 0, 0, err
	}
	whole, err := b.blocks("whole")
	return pieces, whole, err
}

// blocks returns the processor time of claiming a block in a pool's service "filled".
func (b *bench) blocks(pool string) (float64, error) {
	return b.cost(
		func(ports *allocator.Allocator) error {
			return forBatch(func(i int) error {
				_, _, err := ports.Claim(background, allocator.Caller{}, pool, "filled", []allocator.Request{{Name: holder(i), Count: new(4)}}, allocator.Wait{})
				return err
			})
		},
		func(ports *allocator.Allocator) error {
			return forBatch(func(i int) error {
				return ports.Release(background, allocator.Caller{}, pool, "filled", holder(i), allocator.Proof{})
			})
		})
}

// fill gives a pool a service of which so many ports are allocated, once.
func (b *bench) fill(pool string, start, end, allocations int) error {
	s, _, err := b.ports.Define(background, allocator.Caller{}, pool, allocator.Definition{Name: "filled", Start: start, End: end})
	if err != nil || s.Ports.Allocated >= allocations {
		return err
	}
	return concurrently(allocations, func(i int) error {
		_, _, err := b.ports.Claim(background, allocator.Caller{}, pool, "filled", []allocator.Request{{Name: "holder-" + strconv.Itoa(i)}}, allocator.Wait{})
		return err
	})
}

// concurrently does something n times, on as many connections as the load has, and returns the first error.
func concurrently(n int, do func(i int) error) error {
	var failed error
	var once sync.Once
	var running sync.WaitGroup
	for worker := range connections {
		running.Go(func() {
			for i := worker; i < n; i += connections {
				if err := do(i); err != nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	running.Wait()
	return failed
}

func largeToSmall(b *bench) (float64, float64, error) {
	large, err := b.defines(1024, 49_023)
	if err != nil {
		return 0, 0, err
	}
	small, err := b.defines(1024, 1033)
	return large, small, err
}

// defines returns the processor time of defining a service of a range, each in a pool of its own.
func (b *bench) defines(start, end int) (float64, error) {
	pool := func(i int) string { return "define-" + strconv.Itoa(i) }
	return b.cost(
		func(ports *allocator.Allocator) error {
			return forBatch(func(i int) error {
				_, err := ports.Create(background, allocator.Caller{}, pool(i), allocator.Definition{Name: "service", Start: start, End: end})
				return err
			})
		},
		func(ports *allocator.Allocator) error {
			return forBatch(func(i int) error { return ports.Remove(background, allocator.Caller{}, pool(i), "service") })
		})
}

func p99ToP50(b *bench) (float64, float64, error) {
	l, err := b.load(connections)
	return l.P99, l.P50, err
}

func listedToAlone(b *bench) (float64, float64, error) {
	if err := b.fill("listed", 1024, 49_151, 40_000); err != nil {
		return 0, 0, err
	}
	alone, err := b.load(connections)
	if err != nil {
		return 0, 0, err
	}
	ctx, stop := context.WithCancel(background)
	listed := make(chan error, 1)
	go func() { listed <- b.list(ctx, "listed", 40_000) }()
	with, err := b.load(connections)
	stop()
	if failed := <-listed; failed != nil {
		err = failed
	}
	return with.Offer.P99, alone.Offer.P99, err
}

// list reads all allocations of a pool's filled service, page by page, again and again.
func (b *bench) list(ctx context.Context, pool string, expected int) error {
	for {
		listed := 0
		for next := "/v1/pools/" + pool + "/services/filled/ports"; next != ""; {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+next, nil)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if ctx.Err() != nil {
				return nil
			} else if err != nil {
				return err
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if ctx.Err() != nil {
				return nil
			} else if err != nil || response.StatusCode != http.StatusOK {
				return fmt.Errorf("a list: %s: %w", response.Status, err)
			}
			listed += strings.Count(string(body), `"fence"`)
			next, _, _ = strings.Cut(strings.TrimPrefix(response.Header.Get("Link"), "<"), ">")
		}
		if listed != expected {
			return fmt.Errorf("listed %d allocations of %d", listed, expected)
		}
	}
}

// memoryPerAllocation fills a service, deletes the marks of the accepted offers, which would be gone in a minute, and
// looks how much memory came to be used.
func memoryPerAllocation(b *bench) (float64, float64, error) {
	const allocations = 40_000
	before, err := b.usedMemory()
	if err != nil {
		return 0, 0, err
	}
	pool := "memory-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := b.fill(pool, 1024, 49_151, allocations); err != nil {
		return 0, 0, err
	}
	after, err := b.usedMemory()
	return (after - before) / allocations, 1, err
}

func (b *bench) usedMemory() (float64, error) {
	marks := b.client.Scan(background, 0, "portmaster:*:offer:*", 10_000).Iterator()
	for marks.Next(background) {
		if err := b.client.Unlink(background, marks.Val()).Err(); err != nil {
			return 0, err
		}
	}
	if err := marks.Err(); err != nil {
		return 0, err
	}
	info, err := b.client.Info(background, "memory").Result()
	_, rest, _ := strings.Cut(info, "used_memory:")
	figure, _, _ := strings.Cut(rest, "\r")
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(figure, 64)
}

// loneClient alternates the plain route with a PING, so that Redis is called about as seldom as by the lone client of the
// cycle: in a tight loop of PINGs it would never fall asleep, and waking it is most of what a PING takes.
func loneClient(b *bench) (float64, float64, error) {
	cycle, err := b.load(1)
	if err != nil {
		return 0, 0, err
	}
	call := b.plainCall()
	var plain, ping []float64
	for start := time.Now(); time.Since(start) < b.window; {
		began := time.Now()
		if err := call(); err != nil {
			return 0, 0, err
		}
		answered := time.Now()
		if err := b.client.Ping(background).Err(); err != nil {
			return 0, 0, err
		}
		plain = append(plain, float64(answered.Sub(began).Microseconds()))
		ping = append(ping, float64(time.Since(answered).Microseconds()))
	}
	return cycle.Offer.P50 * 1000, median(plain) + median(ping), nil
}
