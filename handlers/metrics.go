package handlers

import (
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"portmaster/allocator"
	"portmaster/handlers/identity"
)

// metrics are the metrics of one Server.
type metrics struct {
	requests   *prometheus.HistogramVec
	operations *prometheus.CounterVec
	inUse      prometheus.Counter
	waits      *waitCounts
	quotas     *quotas
	unmatched  *routeMetrics
	scrape     fiber.Handler
	scraping   sync.Mutex
}

// newMetrics returns the metrics of a server, and more. auth is nil if it is open.
func newMetrics(health *health, auth *identity.Authenticator, more []prometheus.Collector) *metrics {
	m := &metrics{
		waits:  newWaitCounts(),
		quotas: &quotas{},
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "portmaster_http_request_duration_seconds",
			Help:    "Duration of requests, by method, route template and status. The route of requests with ?wait= ends with ?wait.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"method", "route", "status"}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portmaster_operations_total",
			Help: "Calls by operation and outcome: OK, the code of the error, or HUNG_UP (status 499) if the client hung up while it waited or while it sent its request.",
		}, []string{"operation", "code"}),
		inUse: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portmaster_ports_in_use_total",
			Help: "How many offers were rejected because something else uses their port.",
		}),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.requests, m.operations, m.inUse, m.waits.seconds, &redisCollector{health, m.waits, m.quotas},
		collectors.NewBuildInfoCollector(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(authMetrics(auth)...)
	registry.MustRegister(more...)
	m.unmatched = m.route(route{method: "other", path: "other", operation: "other"})
	m.scrape = adaptor.HTTPHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return m
}

// scrape: GET /metrics. Scrapes run one at a time: with 20,000 services one uses a core for 150 ms, and the other cores are
// for requests.
func (s *Server) scrape(c *fiber.Ctx) error {
	s.metrics.scraping.Lock()
	defer s.metrics.scraping.Unlock()
	c.Request().Header.Del(fiber.HeaderAccept) // always text
	return s.metrics.scrape(c)
}

// routeMetrics are the metrics of one route.
type routeMetrics struct {
	metrics *metrics
	route   route
}

type outcome struct {
	status int
	code   string
	waits  bool
}

// The outcomes that alerts count. They start at 0, since otherwise the first one would not be an increase. Only calls that may
// wait can be refused a port.
var (
	alerting        = []string{codeOK, string(allocator.CodeOutcomeUnknown)}
	alertingOfPorts = []string{string(allocator.CodeExhausted), string(allocator.CodeTooManyWaiting)}
)

func (m *metrics) route(r route) *routeMetrics {
	for _, code := range alerting {
		m.operations.WithLabelValues(r.operation, code)
	}
	if slices.Contains(r.query, "wait") {
		for _, code := range alertingOfPorts {
			m.operations.WithLabelValues(r.operation, code)
		}
	}
	return &routeMetrics{metrics: m, route: r}
}

// observe counts a request. Calls that may wait are counted separately, since their duration says nothing about the server's speed.
func (r *routeMetrics) observe(o outcome, took time.Duration) {
	path := r.route.path
	if o.waits {
		path += "?wait"
	}
	r.metrics.requests.WithLabelValues(r.route.method, path, strconv.Itoa(o.status)).Observe(took.Seconds())
	r.metrics.operations.WithLabelValues(r.route.operation, o.code).Inc()
}

var (
	portsDesc = prometheus.NewDesc("portmaster_ports",
		"Ports of a service by state: free, offered, allocated, cooling.", []string{"pool", "service", "state"}, nil)
	waitingDesc = prometheus.NewDesc("portmaster_waiting",
		"How many calls wait for a port of a service.", []string{"pool", "service"}, nil)
	redisUpDesc = prometheus.NewDesc("portmaster_redis_up",
		"1 if Redis answered this scrape, or a check of this server within the 10 s before it; otherwise 0.", nil, nil)
	unreadDesc = prometheus.NewDesc("portmaster_pools_unread",
		"How many pools lack services in this scrape, because Redis did not answer for them in time; +Inf if all do.", nil, nil)
	storeProblemDesc = prometheus.NewDesc("portmaster_store_problem",
		"1 if Redis has this problem: evicts, not_master, write_failed, state_lost, schema_newer (then /readyz fails), volatile, "+
			"memory_full, memory_low.", []string{"problem"}, nil)
	rollbacksDesc = prometheus.NewDesc("portmaster_state_rollbacks_total",
		"How often the state in Redis was older than the acknowledged one, as after a failover, and the server continued.", nil, nil)
	behindDesc = prometheus.NewDesc("portmaster_state_behind_seconds",
		"By how much it was older the last time; 0 if it never was.", nil, nil)
	clockStepsDesc = prometheus.NewDesc("portmaster_clock_steps_total",
		"How often this server saw the clock of Redis step by more than a second.", nil, nil)
	redisConnectionsDesc = prometheus.NewDesc("portmaster_redis_connections",
		"Connections to Redis by state: idle, used.", []string{"state"}, nil)
	redisTimeoutsDesc = prometheus.NewDesc("portmaster_redis_connection_timeouts_total",
		"How often a call got no connection to Redis in time.", nil, nil)
	redisStaleDesc = prometheus.NewDesc("portmaster_redis_stale_connections_total",
		"How many connections to Redis were found broken and closed.", nil, nil)
)

// scrapeTimeout limits how long a scrape reads services; those that it did not reach are missing.
const scrapeTimeout = 5 * time.Second

// redisCollector reads the state of Redis at the time of a scrape.
type redisCollector struct {
	health *health
	waits  *waitCounts
	quotas *quotas
}

// Describe implements prometheus.Collector.
func (r *redisCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{portsDesc, waitingDesc, waitedDesc, ownerPortsDesc, ownerQuotaDesc, redisUpDesc, unreadDesc, storeProblemDesc, rollbacksDesc, behindDesc, clockStepsDesc, redisConnectionsDesc, redisTimeoutsDesc, redisStaleDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (r *redisCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	up, missing := 0.0, math.Inf(1)
	if findings, err := r.health.latest(ctx); err == nil {
		up = 1
		collectProblems(ch, findings)
		if figures, unread, err := r.health.allocator.AllFigures(ctx); err == nil {
			missing = float64(unread)
			collectFigures(ch, figures)
			r.waits.collect(ch, figures, unread == 0)
		}
		r.quotas.collect(ctx, r.health.allocator, ch)
	}
	ch <- prometheus.MustNewConstMetric(unreadDesc, prometheus.GaugeValue, missing)
	ch <- prometheus.MustNewConstMetric(redisUpDesc, prometheus.GaugeValue, up)
	state := r.health.allocator.StateFigures()
	ch <- prometheus.MustNewConstMetric(rollbacksDesc, prometheus.CounterValue, float64(state.Rollbacks))
	ch <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, state.Behind.Seconds())
	ch <- prometheus.MustNewConstMetric(clockStepsDesc, prometheus.CounterValue, float64(state.ClockSteps))
	connections := r.health.allocator.Connections()
	ch <- prometheus.MustNewConstMetric(redisConnectionsDesc, prometheus.GaugeValue, float64(connections.Idle), "idle")
	ch <- prometheus.MustNewConstMetric(redisConnectionsDesc, prometheus.GaugeValue, float64(connections.Used), "used")
	ch <- prometheus.MustNewConstMetric(redisTimeoutsDesc, prometheus.CounterValue, float64(connections.Timeouts))
	ch <- prometheus.MustNewConstMetric(redisStaleDesc, prometheus.CounterValue, float64(connections.Broken))
}

func collectFigures(ch chan<- prometheus.Metric, figures []allocator.Figures) {
	free, offered, allocated, cooling := label("state", "free"), label("state", "offered"), label("state", "allocated"), label("state", "cooling")
	for _, f := range figures {
		pool, service := label("pool", f.Pool), label("service", f.Service)
		ch <- &gauge{portsDesc, []*dto.LabelPair{pool, service, free}, float64(f.Ports.Free)}
		ch <- &gauge{portsDesc, []*dto.LabelPair{pool, service, offered}, float64(f.Ports.Offered)}
		ch <- &gauge{portsDesc, []*dto.LabelPair{pool, service, allocated}, float64(f.Ports.Allocated)}
		ch <- &gauge{portsDesc, []*dto.LabelPair{pool, service, cooling}, float64(f.Ports.Cooling)}
		ch <- &gauge{waitingDesc, []*dto.LabelPair{pool, service}, float64(f.Waiting)}
	}
}

// gauge is a gauge in half the time of prometheus.MustNewConstMetric, for values of which there are many.
type gauge struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair // in the order of their names
	value  float64
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// Desc implements prometheus.Metric.
func (g *gauge) Desc() *prometheus.Desc { return g.desc }

// Write implements prometheus.Metric.
func (g *gauge) Write(out *dto.Metric) error {
	out.Label, out.Gauge = g.labels, &dto.Gauge{Value: &g.value}
	return nil
}

// counter is the same for a counter.
type counter gauge

// Desc implements prometheus.Metric.
func (c *counter) Desc() *prometheus.Desc { return c.desc }

// Write implements prometheus.Metric.
func (c *counter) Write(out *dto.Metric) error {
	out.Label, out.Counter = c.labels, &dto.Counter{Value: &c.value}
	return nil
}

func collectProblems(ch chan<- prometheus.Metric, findings []allocator.Finding) {
	for _, problem := range allocator.Problems {
		found := 0.0
		if slices.ContainsFunc(findings, func(f allocator.Finding) bool { return f.Problem == problem }) {
			found = 1
		}
		ch <- prometheus.MustNewConstMetric(storeProblemDesc, prometheus.GaugeValue, found, string(problem))
	}
}
