package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
	"portmaster/lua"
)

// worstToOffer compares the most expensive script there is with an offer: a claim of 256 certain ports, for as many wants as one
// call may have, all leased and with secrets of their own, where every second port was given back and the others are fresh.
func worstToOffer(b *bench) (float64, float64, error) {
	const pool, service, start, end = "worst", "scattered", 1024, 9023
	d := allocator.Definition{Name: service, Start: start, End: end}
	if _, created, err := b.ports.Define(background, allocator.Caller{}, pool, d); err != nil {
		return 0, 0, err
	} else if created {
		err := concurrently((end-start+1)/2, func(i int) error {
			name := holder(i)
			_, _, err := b.ports.Claim(background, allocator.Caller{}, pool, service, []allocator.Request{{Name: name, Port: new(start + 2*i)}}, allocator.Wait{})
			if err != nil {
				return err
			}
			return b.ports.Release(background, allocator.Caller{}, pool, service, name, allocator.Proof{})
		})
		if err != nil {
			return 0, 0, err
		}
	}
	saved, err := b.save(pool)
	if err != nil {
		return 0, 0, err
	}
	claims, err := b.record(func(ports *allocator.Allocator) error {
		_, _, err := ports.Claim(background, allocator.Caller{}, pool, service, scattered(start), allocator.Wait{})
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if len(claims[0]) != 1 {
		return 0, 0, fmt.Errorf("the claim took %d scripts, not 1", len(claims[0]))
	}
	var costs []float64
	for began := time.Now(); len(costs) == 0 || time.Since(began) < b.window; {
		if err := b.restore(saved, claims[0][0]); err != nil {
			return 0, 0, err
		}
		before := fineCPU(b.redis)
		if err := b.client.Do(background, claims[0][0]...).Err(); err != nil {
			return 0, 0, err
		}
		costs = append(costs, fineCPU(b.redis)-before)
	}
	if err := b.restore(saved, claims[0][0]); err != nil {
		return 0, 0, err
	}
	offer, err := b.plainOffer()
	return median(costs), offer, err
}

// scattered wants 256 certain ports from one on: 78 times 3 in a row, and 22 single ones.
func scattered(start int) []allocator.Request {
	wants := make([]allocator.Request, allocator.MaxRequests)
	for i := range wants {
		wants[i] = allocator.Request{Name: holder(i), Secret: uuid.NewString(), Lease: new(time.Hour), Port: new(start + 9*i)}
		if i < 78 {
			wants[i].Count = new(3)
		}
	}
	return wants
}

// saved is a key as it was.
type saved struct{ key, dump string }

// save remembers the keys of a pool.
func (b *bench) save(pool string) (all []saved, err error) {
	keys := b.client.Scan(background, 0, "portmaster:{"+pool+"}:*", 10_000).Iterator()
	for keys.Next(background) {
		if strings.Contains(keys.Val(), ":offer:") {
			continue
		}
		dump, err := b.client.Dump(background, keys.Val()).Result()
		if err != nil {
			return nil, err
		}
		all = append(all, saved{keys.Val(), dump})
	}
	return all, keys.Err()
}

// restore makes all keys of a script what they were.
func (b *bench) restore(all []saved, script []any) error {
	pipeline := b.client.TxPipeline()
	for _, key := range script[3 : 3+script[2].(int)] {
		pipeline.Del(background, *key.(*string))
	}
	for _, s := range all {
		pipeline.RestoreReplace(background, s.key, 0, s.dump)
	}
	_, err := pipeline.Exec(background)
	return err
}

// plainOffer returns the processor time of an offer where nothing is taken.
func (b *bench) plainOffer() (float64, error) {
	if _, _, err := b.ports.Define(background, allocator.Caller{}, "empty", allocator.Definition{Name: "filled", Start: 1024, End: 50_000}); err != nil {
		return 0, err
	}
	return b.offers("empty")
}

// refusedToOffer compares the refusal to cut a range with an offer. All of its 48,000 ports were handed out, and one is held.
func refusedToOffer(b *bench) (float64, float64, error) {
	const pool, service, start, blocks = "cut", "filled", 1024, 480
	d := allocator.Definition{Name: service, Start: start, End: start + 100*blocks - 1}
	if _, created, err := b.ports.Define(background, allocator.Caller{}, pool, d); err != nil {
		return 0, 0, err
	} else if created {
		if err := b.useOnce(pool, service, blocks); err != nil {
			return 0, 0, err
		}
	}
	refuse := func(ports *allocator.Allocator) error {
		_, _, err := ports.Define(background, allocator.Caller{}, pool, allocator.Definition{Name: service, Start: start, End: start})
		if !errors.Is(err, allocator.ErrRangeInUse) {
			return fmt.Errorf("the cut was not refused: %w", err)
		}
		return nil
	}
	steps, err := b.record(refuse)
	if err != nil {
		return 0, 0, err
	}
	defines := slices.DeleteFunc(steps[0], func(script []any) bool { return script[1] != lua.Define.Hash })
	if len(defines) != 1 {
		return 0, 0, fmt.Errorf("the refusal took %d scripts, not 1", len(defines))
	}
	rounds, cost := 0, 0.0
	for began := time.Now(); rounds == 0 || time.Since(began) < b.window; rounds++ {
		pipeline := b.client.Pipeline()
		for range batch {
			pipeline.Do(background, defines[0]...)
		}
		before := fineCPU(b.redis)
		if _, err := pipeline.Exec(background); !redis.HasErrorPrefix(err, "RANGE_IN_USE") {
			return 0, 0, fmt.Errorf("the cut was not refused: %w", err)
		}
		cost += fineCPU(b.redis) - before
	}
	offer, err := b.plainOffer()
	return cost / float64(rounds*batch), offer, err
}

// useOnce lets all ports of a service be handed out and given back, in so many blocks of 100, and one be held: the last.
func (b *bench) useOnce(pool, service string, blocks int) error {
	err := concurrently(blocks, func(i int) error {
		_, _, err := b.ports.Claim(background, allocator.Caller{}, pool, service, []allocator.Request{{Name: holder(i), Count: new(100)}}, allocator.Wait{})
		return err
	})
	if err != nil {
		return err
	}
	err = concurrently(blocks, func(i int) error {
		return b.ports.Release(background, allocator.Caller{}, pool, service, holder(i), allocator.Proof{})
	})
	if err != nil {
		return err
	}
	last := 1024 + 100*blocks - 1
	_, _, err = b.ports.Claim(background, allocator.Caller{}, pool, service, []allocator.Request{{Name: "last", Port: new(last)}}, allocator.Wait{})
	return err
}

// scrapeToOffer compares what a scrape costs for each service that it reads with an offer.
func scrapeToOffer(b *bench) (float64, float64, error) {
	const pool, services = "scraped", 10_000
	count, _, err := b.ports.Services(background, pool, "", 1)
	if err == nil && len(count) == 0 {
		err = concurrently(services, func(i int) error {
			d := allocator.Definition{Name: "service-" + strconv.Itoa(i), Start: 1024 + 4*i, End: 1027 + 4*i}
			_, err := b.ports.Create(background, allocator.Caller{}, pool, d)
			return err
		})
	}
	if err != nil {
		return 0, 0, err
	}
	read, cost := 0, 0.0
	for began := time.Now(); read == 0 || time.Since(began) < b.window; {
		if err := b.client.Del(background, "portmaster:figures").Err(); err != nil { // else it would be the last reading once more
			return 0, 0, err
		}
		before := fineCPU(b.redis)
		all, unread, err := b.ports.AllFigures(background)
		if err != nil || unread > 0 || len(all) < services {
			return 0, 0, fmt.Errorf("a scrape read %d services, and %d pools not: %w", len(all), unread, err)
		}
		cost += fineCPU(b.redis) - before
		read += len(all)
	}
	offer, err := b.plainOffer()
	return cost / float64(read), offer, err
}
