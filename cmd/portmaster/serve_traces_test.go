package main

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is a collector of traces.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []*otlp.Span
	of      map[string]string // the attributes of the server
	all     []byte            // everything, as it came
	headers http.Header
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body := io.Reader(request.Body)
		if request.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(body)
		}
		bytes, _ := io.ReadAll(body)
		var export collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(bytes, &export); err != nil || request.URL.Path != "/v1/traces" {
			t.Errorf("%s %s: %v", request.Method, request.URL, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all, r.headers = append(r.all, bytes...), request.Header
		for _, of := range export.ResourceSpans {
			r.of = textsOf(of.Resource.Attributes)
			for _, scope := range of.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func textsOf(attributes []*common.KeyValue) map[string]string {
	texts := map[string]string{}
	for _, a := range attributes {
		if texts[a.Key] = a.Value.GetStringValue(); texts[a.Key] == "" {
			texts[a.Key] = fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return texts
}

// span returns the span of a name in a trace; nil if none came yet.
func (r *receiver) span(trace, name string) *otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, span := range r.spans {
		if span.Name == name && hex.EncodeToString(span.TraceId) == trace {
			return span
		}
	}
	return nil
}

// await returns the span of a name in a trace.
func (r *receiver) await(t *testing.T, trace, name string) (span *otlp.Span) {
	t.Helper()
	eventually(t, name+" is in the trace "+trace, func() bool {
		span = r.span(trace, name)
		return span != nil
	})
	return span
}

// A request is a span of its caller's trace, and its call to Redis one below that.
func TestTraces(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	p := startProgram(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+r.URL, "OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip",
		"OTEL_EXPORTER_OTLP_HEADERS=x-of=ann", "OTEL_RESOURCE_ATTRIBUTES=deployment=blue")
	const parent, token = "00f067aa0ba902b7", "pm_0123456789abcdef0123456789abcdef"
	var secrets []string
	call := func(trace, method, path, body string, want int) {
		t.Helper()
		status, answer := p.callWith(t.Context(), http.Header{
			"Traceparent": {"00-" + trace + "-" + parent + "-01"}, "Authorization": {"Bearer " + token}, "X-Request-Id": {"of-" + trace[:2]},
		}, method, path, body)
		if status != want {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		var of struct{ Secret string }
		if _ = json.Unmarshal([]byte(answer), &of); of.Secret != "" {
			secrets = append(secrets, of.Secret)
		}
	}
	trace := func(n int) string { return fmt.Sprintf("%02x%030x", n, n) }
	call(trace(1), "PUT", "/v1/pools/host/services/web", `{"start":5000,"end":5000}`, 201)
	call(trace(2), "POST", "/v1/pools/host/services/web/offers", `{"name":"web-01"}`, 201)
	call(trace(3), "POST", "/v1/pools/host/services/web/offers/"+secrets[0]+"/accept", "", 201)
	call(trace(4), "POST", "/v1/pools/host/services/web/ports?wait=50ms", `{"name":"web-02"}`, 409)
	call(trace(5), "GET", "/v1/pools/host/services/"+secrets[0], "", 404) // a client confused its parameters
	call(trace(6), "GET", "/livez", "", 200)

	span := r.await(t, trace(2), "offer")
	want := map[string]string{
		"http.request.method": "POST", "http.route": "/v1/pools/:pool/services/:service/offers", "http.response.status_code": "201",
		"portmaster.code": "OK", "portmaster.pool": "host", "portmaster.service": "web", "portmaster.request_id": "of-02",
	}
	if got := textsOf(span.Attributes); !maps.Equal(got, want) {
		t.Errorf("offer: %v, want %v", got, want)
	}
	if hex.EncodeToString(span.ParentSpanId) != parent || span.Kind != otlp.Span_SPAN_KIND_SERVER {
		t.Errorf("offer is a %v below %x", span.Kind, span.ParentSpanId)
	}
	redis := r.await(t, trace(2), "redis ports/offer_any")
	if string(redis.ParentSpanId) != string(span.SpanId) || redis.StartTimeUnixNano < span.StartTimeUnixNano || redis.EndTimeUnixNano > span.EndTimeUnixNano {
		t.Errorf("the call to Redis is not within the request: %v, %v", redis, span)
	}
	r.await(t, trace(3), "accept")
	waiting := r.await(t, trace(4), "claim")
	if got := textsOf(waiting.Attributes)["portmaster.code"]; got != "EXHAUSTED" {
		t.Errorf("claim: %s", got)
	}
	if redis := r.await(t, trace(4), "redis ports/claim"); string(redis.ParentSpanId) != string(waiting.SpanId) {
		t.Error("a try of a call that waits is not below its request")
	}
	r.await(t, trace(5), "readService")
	p.signal(t, syscall.SIGTERM) // sends what waits
	p.wait(t)
	if r.span(trace(6), "live") != nil {
		t.Error("a probe is traced")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, span := range r.spans {
		if len(span.ParentSpanId) == 0 {
			t.Errorf("%s is of no request", span.Name)
		}
	}
	for _, secret := range append(secrets, token) {
		if strings.Contains(string(r.all), secret) {
			t.Errorf("%s is in the traces", secret)
		}
	}
	if r.of["service.name"] != "portmaster" || r.of["deployment"] != "blue" || r.headers.Get("x-of") != "ann" {
		t.Errorf("the server says that it is %v, headers %v", r.of, r.headers)
	}
}

// A collector that takes connections and answers nothing holds up neither a request nor the end of the process.
func TestTracesWithoutACollector(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := startProgram(t, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://"+silent.Addr().String()+"/v1/traces", "OTEL_BSP_SCHEDULE_DELAY=1",
		"OTEL_BSP_MAX_QUEUE_SIZE=8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=8", "OTEL_BSP_EXPORT_TIMEOUT=600000", "OTEL_EXPORTER_OTLP_TIMEOUT=600000",
		"PORTMASTER_SHUTDOWN_TIMEOUT=100ms", "PORTMASTER_SHUTDOWN_DELAY=0s")
	p.must(t, 201, "PUT", "/v1/services/web", `{"start":5000,"end":5099}`)
	for i := range 100 {
		p.must(t, 201, "POST", "/v1/services/web/ports", fmt.Sprintf(`{"name":"n%d"}`, i))
	}
	p.signal(t, syscall.SIGTERM)
	if state := p.wait(t); !state.Success() {
		t.Error(state)
	}
}

// Trouble with the collector is in the log, and a protocol that the server does not have.
func TestTracesInTheLog(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY=1", "OTEL_BSP_EXPORT_TIMEOUT=100")
	p.must(t, 201, "PUT", "/v1/services/web", `{"start":5000,"end":5099}`)
	eventually(t, "the loss is in the log", func() bool { return strings.Contains(p.log.String(), `msg="traces are lost"`) })

	p = startProgram(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
	if !strings.Contains(p.log.String(), "requests are not traced") || strings.Contains(p.log.String(), "tracing requests") {
		t.Error(p.log)
	}
}
