package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/valyala/fasthttp"
)

// benchOptions are the flags of portmaster bench.
type benchOptions struct {
	urls         []string
	pool, output string
	clients      int
	duration     time.Duration
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put a load on a server: repeat offer, accept and release",
		Long: "Put a load on a server: each client repeats offer, accept and release on its own connection. Several servers,\n" +
			"separated by commas, get as many clients each. The ports are those of a new service, which is removed afterwards.\n" +
			"The command fails if a port was given to two holders.",
		Example: "  portmaster bench --clients 8 --duration 2s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			result, err := bench(cmd.Context(), o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := result.print(cmd.OutOrStdout(), o.output); err != nil {
				return err
			}
			if result.GivenTwice > 0 {
				return fmt.Errorf("%d ports were given twice", result.GivenTwice)
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&o.urls, "url", []string{"http://127.0.0.1:8080"}, "URL of the server, or of several that share a Redis")
	cmd.Flags().StringVar(&o.pool, "pool", "bench", "pool to take ports from")
	cmd.Flags().IntVar(&o.clients, "clients", 64, "number of concurrent clients")
	cmd.Flags().DurationVar(&o.duration, "duration", 10*time.Second, "how long to run")
	cmd.Flags().StringVar(&o.output, "output", "table", "output format: table or json")
	return cmd
}

// The ports of the bench's service: more than there can be clients, so that every client gets one.
const (
	benchStart = 10000
	benchEnd   = 29999
)

func (o benchOptions) check() error {
	for _, each := range o.urls {
		server, err := url.Parse(each)
		if err != nil || server.Host == "" || server.Scheme != "http" && server.Scheme != "https" {
			return fmt.Errorf("--url must be http://host:port or https://host:port, not %q", each)
		}
	}
	switch {
	case len(o.urls) == 0:
		return errors.New("--url must name a server")
	case o.clients < 1 || o.clients > benchEnd-benchStart+1:
		return fmt.Errorf("--clients must be within 1-%d", benchEnd-benchStart+1)
	case o.duration <= 0:
		return errors.New("--duration must be positive")
	case o.output != "table" && o.output != "json":
		return errors.New("--output must be table or json")
	}
	return nil
}

// benchResult is the result of a bench.
type benchResult struct {
	Clients    int     `json:"clients"`
	Seconds    float64 `json:"seconds"`
	Cycles     int64   `json:"cycles"`
	Requests   int64   `json:"requests"`
	CyclesPerS float64 `json:"cycles_per_s"`
	RequestsPS float64 `json:"requests_per_s"`
	latency
	Offer      latency        `json:"offer"`
	Accept     latency        `json:"accept"`
	Release    latency        `json:"release"`
	Errors     map[string]int `json:"errors"`
	GivenTwice int64          `json:"ports_given_twice"`
}

// latency is how long one kind of call took.
type latency struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func latencyOf(h *hdrhistogram.Histogram) latency {
	return latency{
		P50: float64(h.ValueAtQuantile(50)) / 1e6,
		P99: float64(h.ValueAtQuantile(99)) / 1e6,
		Max: float64(h.Max()) / 1e6,
	}
}

// The calls of a cycle.
const (
	callOffer = iota
	callAccept
	callRelease
	callKinds
)

// bench defines a service, runs the clients, and removes the service. A second interrupt ends it without removing anything.
func bench(ctx context.Context, o benchOptions, progress io.Writer) (benchResult, error) {
	service := "bench-" + uuid.NewString()[:8]
	setup := newBenchClient(o.urls[0], o.pool, service, nil)
	body := fmt.Sprintf(`{"description":"portmaster bench","start":%d,"end":%d}`, benchStart, benchEnd)
	if status, err := setup.call("PUT", setup.service, body); err != nil {
		return benchResult{}, err
	} else if status != fasthttp.StatusCreated {
		return benchResult{}, fmt.Errorf("defining the service %s: %s", service, setup.response.Body())
	}

	var held portHolders
	clients := make([]*benchClient, o.clients)
	for i := range clients {
		clients[i] = newBenchClient(o.urls[i%len(o.urls)], o.pool, service, &held)
	}
	var cycles atomic.Int64
	run, stop := context.WithTimeout(ctx, o.duration)
	defer stop()
	start := time.Now()
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() { c.run(run, "holder-"+strconv.Itoa(i), &cycles) })
	}
	go reportProgress(run, progress, start, &cycles)
	running.Wait()
	took := time.Since(start)

	var err error
	if status, failed := setup.call("DELETE", setup.service, ""); failed != nil {
		err = fmt.Errorf("removing the service %s: %w", service, failed)
	} else if status != fasthttp.StatusNoContent {
		err = fmt.Errorf("removing the service %s: %s", service, setup.response.Body())
	}
	return sumUp(clients, took, cycles.Load(), held.twice.Load()), err
}

func reportProgress(ctx context.Context, w io.Writer, start time.Time, cycles *atomic.Int64) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	last := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			sum := cycles.Load()
			fmt.Fprintf(w, "%4.0f s  %d cycles/s\n", now.Sub(start).Seconds(), sum-last)
			last = sum
		}
	}
}

func sumUp(clients []*benchClient, took time.Duration, cycles, twice int64) benchResult {
	all := newLatencies()
	var kinds [callKinds]*hdrhistogram.Histogram
	for kind := range kinds {
		kinds[kind] = newLatencies()
	}
	r := benchResult{Clients: len(clients), Seconds: took.Seconds(), Cycles: cycles, Errors: map[string]int{}, GivenTwice: twice}
	for _, c := range clients {
		for kind, h := range c.latencies {
			kinds[kind].Merge(h)
			all.Merge(h)
		}
		for code, n := range c.errors {
			r.Errors[code] += n
		}
	}
	r.Requests = all.TotalCount()
	r.CyclesPerS = float64(r.Cycles) / r.Seconds
	r.RequestsPS = float64(r.Requests) / r.Seconds
	r.latency = latencyOf(all)
	r.Offer, r.Accept, r.Release = latencyOf(kinds[callOffer]), latencyOf(kinds[callAccept]), latencyOf(kinds[callRelease])
	return r
}

func (r benchResult) print(w io.Writer, output string) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "clients\t%d\n", r.Clients)
	fmt.Fprintf(t, "cycles/s\t%.0f\tof offer, accept, release\n", r.CyclesPerS)
	fmt.Fprintf(t, "requests/s\t%.0f\n", r.RequestsPS)
	fmt.Fprintf(t, "\tall\toffer\taccept\trelease\n")
	fmt.Fprintf(t, "p50 (ms)\t%.2f\t%.2f\t%.2f\t%.2f\n", r.P50, r.Offer.P50, r.Accept.P50, r.Release.P50)
	fmt.Fprintf(t, "p99 (ms)\t%.2f\t%.2f\t%.2f\t%.2f\n", r.P99, r.Offer.P99, r.Accept.P99, r.Release.P99)
	fmt.Fprintf(t, "max (ms)\t%.2f\t%.2f\t%.2f\t%.2f\n", r.Max, r.Offer.Max, r.Accept.Max, r.Release.Max)
	for code, n := range r.Errors {
		fmt.Fprintf(t, "errors\t%d\t%s\n", n, code)
	}
	if len(r.Errors) == 0 {
		fmt.Fprintf(t, "errors\t0\n")
	}
	fmt.Fprintf(t, "ports given twice\t%d\n", r.GivenTwice)
	return t.Flush()
}
