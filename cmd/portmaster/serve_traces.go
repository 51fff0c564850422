package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"portmaster/allocator/executor"
)

// traces send the spans of requests to a collector. The zero value sends none.
type traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer // nil: no request is traced
}

// tracesWanted reports whether the environment names a collector. protocol is that of a collector that cannot be used, "" else.
func tracesWanted() (wanted bool, protocol string) {
	endpoint := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") + os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false, ""
	}
	if protocol = os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"); protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if protocol == "grpc" {
		return false, protocol
	}
	return true, ""
}

// openTraces returns traces as the OTEL_ variables of the environment say; the SDK reads them. Spans wait in a queue, and are dropped
// where it is full: a collector that is away or slow holds up no request. It logs trouble every ten seconds at most.
func openTraces(ctx context.Context, log *slog.Logger) (traces, error) {
	wanted, protocol := tracesWanted()
	if protocol != "" {
		log.Warn("requests are not traced: the server sends traces by http/protobuf", slog.String("OTEL_EXPORTER_OTLP_PROTOCOL", protocol))
	}
	if !wanted {
		return traces{}, nil
	}
	log = log.With(slog.String("component", "traces"))
	troubles := rate.Sometimes{First: 1, Interval: 10 * time.Second}
	otel.SetLogger(logr.FromSlogHandler(log.Handler())) // else the SDK writes to standard error as it likes
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		troubles.Do(func() { log.Warn("traces are lost", slog.Any("error", err)) })
	}))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return traces{}, err
	}
	server, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "portmaster"), attribute.String("service.version", version()),
	), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		log.Warn("OTEL_RESOURCE_ATTRIBUTES is not valid", slog.Any("error", err))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(server))
	log.Info("tracing requests")
	return traces{provider, provider.Tracer("portmaster")}, nil
}

// redis returns what makes a span of each call to Redis that belongs to a traced request; nil if none is traced.
func (t traces) redis() executor.Trace {
	if t.tracer == nil {
		return nil
	}
	return func(ctx context.Context, name string) func(error) {
		if !trace.SpanFromContext(ctx).IsRecording() {
			return func(error) {}
		}
		_, span := t.tracer.Start(ctx, "redis "+name, trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", name)))
		return func(err error) {
			if err != nil {
				span.SetStatus(codes.Error, err.Error())
			}
			span.End()
		}
	}
}

// close sends the spans that wait, until ctx ends.
func (t traces) close(ctx context.Context) {
	if t.provider != nil {
		_ = t.provider.Shutdown(ctx) // the log says what is lost
	}
}
