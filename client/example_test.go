package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"portmaster/client"
)

// Claim a port for as long as the program runs. If it is killed, the port comes back when the lease ends.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	c, err := client.New(address, client.Options{Pool: "host-1"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Define(ctx, client.Definition{Name: "ci", Start: 20000, End: 20009}); err != nil {
		log.Fatal(err)
	}
	a, err := c.Claim(ctx, "ci", client.Request{Name: "job-1", Lease: 90 * time.Second}, client.Wait{Longest: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Release(context.WithoutCancel(ctx), a)
	lost := make(chan error, 1)
	go func() { lost <- c.Keep(ctx, a) }()

	fmt.Println("serving on port", a.Port)

	stop()
	fmt.Println(<-lost)
	// Output:
	// serving on port 20000
	// context canceled
}

// Test the port before it is accepted, and take another one if something else uses it.
func ExampleClient_Offer() {
	ctx := context.Background()
	c, _ := client.New(address, client.Options{Pool: "offers"})
	_, _ = c.Define(ctx, client.Definition{Name: "web", Start: 20000, End: 20009})
	isFree := func(port int) bool { return port != 20000 } // net.Listen tells

	for {
		o, err := c.Offer(ctx, "web", client.Request{Name: "web-01"}, client.Wait{})
		if err != nil {
			log.Fatal(err)
		}
		if !isFree(o.Port) {
			_ = c.Reject(ctx, "web", o.Secret, true)
			continue
		}
		a, err := c.Accept(ctx, "web", o.Secret, 0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(a.Name, a.Port)
		break
	}
	// Output: web-01 20001
}

// Get all ports of a deployment, or none.
func ExampleClient_ClaimAll() {
	ctx := context.Background()
	c, _ := client.New(address, client.Options{Pool: "lists"})
	_, _ = c.Define(ctx, client.Definition{Name: "game", Start: 20000, End: 20009})
	requests := []client.Request{{Name: "lobby"}, {Name: "rooms", Count: 4}}
	all, err := c.ClaimAll(ctx, "game", requests, client.Wait{})
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range all {
		fmt.Println(a.Name, a.Port, a.Count)
	}
	// Output:
	// lobby 20004 1
	// rooms 20000 4
}

// Errors are compared with errors.Is. errors.AsType tells the rest.
func ExampleError() {
	ctx := context.Background()
	c, _ := client.New(address, client.Options{Pool: "errors"})
	_, _ = c.Define(ctx, client.Definition{Name: "ci", Start: 20000, End: 20000})
	_, _ = c.Claim(ctx, "ci", client.Request{Name: "job-1", Lease: time.Hour}, client.Wait{})

	_, err := c.Claim(ctx, "ci", client.Request{Name: "job-2"}, client.Wait{})
	if failed, ok := errors.AsType[*client.Error](err); ok && errors.Is(err, client.ErrExhausted) {
		fmt.Println(failed.Status, failed.Detail, failed.RetryAfter)
	}
	_, err = c.Claim(ctx, "ci", client.Request{Name: "job-3", Count: 500}, client.Wait{})
	fmt.Println(err)
	// Output:
	// 409 every port of ci is taken 1h0m0s
	// INVALID: the request is malformed or out of bounds; count: must be within 1-100
}

// Lists go from page to page by themselves.
func ExampleClient_Allocations() {
	ctx := context.Background()
	c, _ := client.New(address, client.Options{Pool: "reads"})
	_, _ = c.Define(ctx, client.Definition{Name: "web", Start: 20000, End: 20009})
	_, _ = c.Claim(ctx, "web", client.Request{Name: "web-01", Port: 20005}, client.Wait{})

	for a, err := range c.Allocations(ctx, "web") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(a.Name, a.Port)
	}
	// Output: web-01 20005
}

// Keep the lease of an allocation that another program claimed.
func ExampleClient_Keep() {
	ctx := context.Background()
	c, _ := client.New(address, client.Options{Pool: "keeps"})
	_, _ = c.Define(ctx, client.Definition{Name: "ci", Start: 20000, End: 20009})
	claimed, _ := c.Claim(ctx, "ci", client.Request{Name: "job-1", Lease: time.Second}, client.Wait{})

	a := client.Allocation{Service: "ci", Name: "job-1", Secret: claimed.Secret, Lease: time.Second}
	time.AfterFunc(100*time.Millisecond, func() { _ = c.Release(ctx, a) })
	err := c.Keep(ctx, a)
	fmt.Println(errors.Is(err, client.ErrLost), errors.Is(err, client.ErrPortNotFound))
	// Output: true true
}

// Who had a port, the latest first.
func ExampleClient_History() {
	ctx := context.Background()
	c, _ := client.New(address, client.Options{Pool: "histories"})
	_, _ = c.Define(ctx, client.Definition{Name: "ci", Start: 20000, End: 20009})
	a, _ := c.Claim(ctx, "ci", client.Request{Name: "job-1"}, client.Wait{})
	_ = c.Release(ctx, a)
	_, _ = c.Claim(ctx, "ci", client.Request{Name: "job-2", Port: a.Port}, client.Wait{})

	for e, err := range c.History(ctx, "ci", client.HistoryFilter{Port: a.Port}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Kind, e.Name, e.Port)
	}
	// Output:
	// allocated job-2 20000
	// released job-1 20000
	// allocated job-1 20000
}

// Follow what happens to the ports of a service.
func ExampleClient_Events() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c, _ := client.New(address, client.Options{Pool: "events"})
	_, _ = c.Define(ctx, client.Definition{Name: "ci", Start: 20000, End: 20009})
	job := func() {
		a, _ := c.Claim(ctx, "ci", client.Request{Name: "job-1"}, client.Wait{})
		_ = c.Release(ctx, a)
	}

	for e, err := range c.Events(ctx, "ci", "") {
		if err != nil {
			log.Fatal(err)
		}
		switch e.Kind {
		case client.EventReady: // from here on, no event is missed
			go job()
		case client.EventReset: // some were: read the state again
		default:
			fmt.Println(e.Kind, e.Name, e.Port)
		}
		if e.Kind == client.EventReleased {
			break
		}
	}
	// Output:
	// allocated job-1 20000
	// released job-1 20000
}
