package handlers

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"portmaster/allocator"
)

var waitedDesc = prometheus.NewDesc("portmaster_waited_total",
	"Calls that stood in line at this server for a port of a service, by how they ended: served, or unserved.", []string{"outcome", "pool", "service"}, nil)

// lines counts how calls that stood in line ended. A service is forgotten when it is removed.
type lines struct {
	mu    sync.Mutex
	ended map[lineOf]*ends
}

// lineOf is the service that a line belongs to.
type lineOf struct{ pool, service string }

type ends struct{ served, unserved float64 }

// count counts the end of a call.
func (l *lines) count(of lineOf, served bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.of(of)
	if served {
		e.served++
	} else {
		e.unserved++
	}
}

// of returns the counts of a line. l.mu is held.
func (l *lines) of(of lineOf) *ends {
	e, ok := l.ended[of]
	if !ok {
		if l.ended == nil {
			l.ended = map[lineOf]*ends{}
		}
		e = &ends{}
		l.ended[of] = e
	}
	return e
}

// collect collects the counts of services that have, or had, a line: they begin with 0 when the first call waits. If the
// figures are those of all services, the others are forgotten.
func (l *lines) collect(ch chan<- prometheus.Metric, figures []allocator.Figures, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := make(map[lineOf]*ends, len(l.ended))
	served, unserved := label("outcome", "served"), label("outcome", "unserved")
	for _, f := range figures {
		of := lineOf{f.Pool, f.Service}
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
