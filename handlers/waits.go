package handlers

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"portmaster/allocator"
)

var waitedDesc = prometheus.NewDesc("portmaster_waited_total",
	"Calls that waited at this server for a port of a service, by how they ended: served or unserved.", []string{"outcome", "pool", "service"}, nil)

// waitCounts counts how waiting calls ended. A service is forgotten when it is removed.
type waitCounts struct {
	seconds *prometheus.HistogramVec // of all services together: a histogram for each would be too many series
	mu      sync.Mutex
	ended   map[serviceKey]*waitCount
}

// How a call ended that could wait.
const (
	waitGranted   = "granted"
	waitExhausted = "exhausted"
	waitLeft      = "left"
)

func newWaitCounts() *waitCounts {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "portmaster_wait_seconds",
		Help: "How long calls with ?wait= waited for a port, 0 if one was free, by how they ended: granted; exhausted; " +
			"left (the client hung up, the server shut down, or Redis failed).",
		Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}, // PORTMASTER_MAX_WAIT is 10 minutes at most
	}, []string{"outcome"})
	for _, outcome := range []string{waitGranted, waitExhausted, waitLeft} {
		seconds.WithLabelValues(outcome)
	}
	return &waitCounts{seconds: seconds}
}

// observe counts the end of a call that could wait, and how long it did. A call that was refused at once says nothing about waiting,
// unless no port was free.
func (l *waitCounts) observe(of serviceKey, waited time.Duration, code string) {
	outcome := waitLeft
	switch code {
	case codeOK:
		outcome = waitGranted
	case string(allocator.CodeExhausted):
		outcome = waitExhausted
	}
	if waited > 0 || outcome != waitLeft {
		l.seconds.WithLabelValues(outcome).Observe(waited.Seconds())
	}
	if waited > 0 {
		l.count(of, code == codeOK)
	}
}

// serviceKey names a service.
type serviceKey struct{ pool, service string }

type waitCount struct{ served, unserved float64 }

// count counts the end of a call.
func (l *waitCounts) count(of serviceKey, served bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.of(of)
	if served {
		e.served++
	} else {
		e.unserved++
	}
}

// of returns the counts of a service. The caller holds l.mu.
func (l *waitCounts) of(of serviceKey) *waitCount {
	e, ok := l.ended[of]
	if !ok {
		if l.ended == nil {
			l.ended = map[serviceKey]*waitCount{}
		}
		e = &waitCount{}
		l.ended[of] = e
	}
	return e
}

// collect sends the counts of services that have, or had, waiting calls. They start at 0 when the first call waits. If the
// figures are those of all services, counts of other services are forgotten.
func (l *waitCounts) collect(ch chan<- prometheus.Metric, figures []allocator.Figures, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := make(map[serviceKey]*waitCount, len(l.ended))
	served, unserved := label("outcome", "served"), label("outcome", "unserved")
	for _, f := range figures {
		of := serviceKey{f.Pool, f.Service}
		if _, known := l.ended[of]; !known && f.Waiting == 0 {
			continue
		}
		e := l.of(of)
		kept[of] = e
		pool, service := label("pool", f.Pool), label("service", f.Service)
		ch <- &counter{waitedDesc, []*dto.LabelPair{served, pool, service}, e.served}
		ch <- &counter{waitedDesc, []*dto.LabelPair{unserved, pool, service}, e.unserved}
	}
	if all {
		l.ended = kept
	}
}
