package handlers

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
)

func TestMetrics(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.put("/v1/pools/host-1/services/flask", `{"start":5000,"end":5001}`).want(201)
		web := a.offer("django", "web-01")
		a.accept(web)
		a.put(web.path(), "").want(200)
		a.accept(a.offer("django", "db-01"))
		a.offer("django", "web-02")
		a.post("/v1/services/django/offers", `{"name":"web-02"}`).want(409)
		used := a.offer("django", "web-03").path()
		a.post(used+"/reject", `{"reason":"in_use"}`).want(204)
		a.post(used+"/reject", `{"reason":"in_use"}`).want(204) // again
		a.post(a.offer("django", "web-03").path()+"/reject", "").want(204)
		a.post("/v1/services/django/ports", `[{"name":"web-04"},{"name":"web-05","count":2}]`).want(201)
		a.get("/v1/services/django").want(200)
		a.do("HEAD", "/v1/services/django", "").want(200)
		a.get("/v1/services/flask").want(404)
		a.get("/v1/pools/host-1/services/flask").want(200)
		a.get("/nothing").want(404)
		a.get("/nothing/else").want(404)
		a.do("PATCH", "/v1/services", "").want(405)
		a.post("/v1/services", "{", "X-Request-ID", "1").want(400)

		r := a.get("/metrics", "Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited").want(200)
		if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
			t.Errorf("Content-Type %q", got)
		}
		for _, line := range []string{
			`portmaster_ports{pool="default",service="django",state="free"} 3`,
			`portmaster_ports{pool="default",service="django",state="offered"} 1`,
			`portmaster_ports{pool="default",service="django",state="allocated"} 5`,
			`portmaster_ports{pool="default",service="django",state="cooling"} 1`,
			`portmaster_waiting{pool="default",service="django"} 0`,
			`portmaster_ports_in_use_total 1`,
			`portmaster_ports{pool="host-1",service="flask",state="free"} 2`,
			`portmaster_redis_up 1`,
			`portmaster_pools_unread 0`,

			// What alerts count begins at 0.
			`portmaster_operations_total{code="OUTCOME_UNKNOWN",operation="offer"} 0`,
			`portmaster_operations_total{code="OUTCOME_UNKNOWN",operation="release"} 0`,
			`portmaster_operations_total{code="EXHAUSTED",operation="claim"} 0`,
			`portmaster_operations_total{code="TOO_MANY_WAITING",operation="offer"} 0`,

			`portmaster_operations_total{code="OK",operation="defineService"} 2`,
			`portmaster_operations_total{code="OK",operation="claim"} 1`,
			`portmaster_operations_total{code="OK",operation="reject"} 3`,
			`portmaster_operations_total{code="OK",operation="offer"} 5`,
			`portmaster_operations_total{code="NAME_TAKEN",operation="offer"} 1`,
			`portmaster_operations_total{code="OK",operation="accept"} 3`,
			`portmaster_operations_total{code="OK",operation="readService"} 3`,
			`portmaster_operations_total{code="SERVICE_NOT_FOUND",operation="readService"} 1`,
			`portmaster_operations_total{code="INVALID",operation="createService"} 1`,
			`portmaster_operations_total{code="NOT_FOUND",operation="other"} 2`,
			`portmaster_operations_total{code="METHOD_NOT_ALLOWED",operation="other"} 1`,

			`portmaster_http_request_duration_seconds_count{method="POST",route="/v1/services/:service/offers",status="201"} 5`,
			`portmaster_http_request_duration_seconds_count{method="POST",route="/v1/services/:service/offers",status="409"} 1`,
			`portmaster_http_request_duration_seconds_count{method="POST",route="/v1/services/:service/offers/:secret/accept",status="201"} 2`,
			`portmaster_http_request_duration_seconds_count{method="PUT",route="/v1/services/:service/offers/:secret",status="200"} 1`,
			`portmaster_http_request_duration_seconds_count{method="GET",route="/v1/services/:service",status="404"} 1`,
			`portmaster_http_request_duration_seconds_count{method="GET",route="/v1/pools/:pool/services/:service",status="200"} 1`,
			`portmaster_http_request_duration_seconds_count{method="other",route="other",status="404"} 2`,
		} {
			contains(t, r.body, line+"\n")
		}
		for _, family := range []string{
			"portmaster_http_request_duration_seconds histogram", "portmaster_operations_total counter", "portmaster_ports gauge",
			"portmaster_waiting gauge", "portmaster_ports_in_use_total counter",
			"portmaster_redis_up gauge", "portmaster_pools_unread gauge", "portmaster_redis_connections gauge", "portmaster_redis_connection_timeouts_total counter",
			"portmaster_redis_stale_connections_total counter",
			"go_goroutines gauge", "go_build_info gauge", "process_open_fds gauge",
		} {
			contains(t, r.body, "# TYPE "+family+"\n")
		}
		a.noSecretsIn("/metrics", r.body)

		// A service that is gone is gone from the figures.
		a.delete("/v1/pools/host-1/services/flask").want(204)
		if r := a.get("/metrics").want(200); strings.Contains(r.body, "flask") {
			t.Error("a removed service is in the figures")
		}
	})
}

// Redis is up in the metrics while /readyz has its answers, though it does not answer the scrape itself.
func TestMetricsOfASlowScrape(t *testing.T) {
	store, stop, _ := storetest.Private(t, "--appendonly", "no")
	a := newAPI(t, store)
	a.get("/readyz").want(200)
	stop()
	contains(t, a.get("/metrics").want(200).body, "portmaster_redis_up 1\n", "portmaster_pools_unread +Inf\n", `portmaster_store_problem{problem="volatile"} 1`+"\n")
	last := a.server.health.last.Load()
	a.server.health.last.Store(&checked{last.at.Add(-answerHolds), last.findings})
	body := a.get("/metrics").want(200).body
	contains(t, body, "portmaster_redis_up 0\n")
	if strings.Contains(body, "portmaster_store_problem{") {
		t.Error("it tells of a Redis that does not answer")
	}
}

// A master of a Cluster is dead: what it has is missing, and the answers say so.
func TestListsAndMetricsWithADeadMaster(t *testing.T) {
	t.Parallel()
	nodes := storetest.Cluster(t, 3)
	cluster := storetest.ClusterClient(t, nodes)
	log := &logs{}
	a := serve(t, nodes[0], New(
		allocator.New(cluster, allocator.Options{KeyPrefix: "portmaster", OfferTTL: time.Hour, PortMin: 1024, PortMax: 49151, Timeout: 2 * time.Second}),
		Options{ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, BodyLimit: 64 << 10, Concurrency: 100,
			SlowCall: time.Minute, Log: slog.New(slog.NewTextHandler(log, nil))}), log)
	const pools = 30
	for i := range pools {
		a.put(fmt.Sprintf("/v1/pools/p%d/services/web", i), `{"start":5000,"end":5000}`).want(201)
	}
	ended := storetest.EndMaster(t, cluster, nodes, "portmaster:pools", "portmaster:deployment")

	lost := 0
	body := a.get("/metrics").want(200).body
	listed := a.get("/v1/pools").want(200).body
	for i := range pools {
		pool := fmt.Sprint("p", i)
		master, err := cluster.MasterForKey(t.Context(), "portmaster:{"+pool+"}:")
		if err != nil {
			t.Fatal(err)
		}
		gone := master.Options().Addr == ended.Addr
		if gone {
			lost++
		}
		equal(t, pool+" is in the metrics", strings.Contains(body, `portmaster_ports{pool="`+pool+`",service="web",state="free"} 1`), !gone)
		equal(t, pool+" is listed alone", strings.Contains(listed, `{"name":"`+pool+`"}`), gone)
		equal(t, pool+" is listed with its number", strings.Contains(listed, `{"name":"`+pool+`","services":1}`), !gone)
	}
	contains(t, body, "portmaster_redis_up 1\n", fmt.Sprintf("portmaster_pools_unread %d\n", lost))
	if lost == 0 {
		t.Error("the master that ended had no pool")
	}
}
