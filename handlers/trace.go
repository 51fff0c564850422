package handlers

import (
	"context"
	"strings"

	"github.com/gofiber/fiber/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// answererOf returns what answers the requests of a route. Without a tracer nothing is added to it. Probes and scrapes are not traced.
func (s *Server) answererOf(r route) func(route, *fiber.Ctx) string {
	if s.tracer == nil || !strings.HasPrefix(r.path, "/v1/") {
		return s.answer
	}
	return s.answerTraced
}

// answerTraced is answer within a span, which continues the caller's trace if the request has a traceparent. What is in a span may
// outlive the request, and neither a secret nor a token is.
func (s *Server) answerTraced(r route, c *fiber.Ctx) (code string) {
	ctx := propagation.TraceContext{}.Extract(c.UserContext(), carrier{c})
	ctx, span := s.tracer.Start(ctx, r.operation, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", strings.Clone(c.Method())),
		attribute.String("http.route", r.path),
	))
	defer span.End()
	c.SetUserContext(ctx)
	code = s.answer(r, c)
	status := c.Response().StatusCode()
	span.SetAttributes(
		attribute.Int("http.response.status_code", status),
		attribute.String("portmaster.code", code),
		attribute.String("portmaster.request_id", requestID(c)),
	)
	if strings.Contains(r.path, "/services") {
		span.SetAttributes(attribute.String("portmaster.pool", shown(pool(c))))
	}
	if service := shown(param(c, "service")); service != "" {
		span.SetAttributes(attribute.String("portmaster.service", service))
	}
	if status >= 500 {
		span.SetStatus(codes.Error, code)
	}
	return code
}

// withSpanOf returns ctx with the span of a request, if it is traced.
func (s *Server) withSpanOf(c *fiber.Ctx, ctx context.Context) context.Context {
	if s.tracer == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, trace.SpanFromContext(c.UserContext()))
}

// carrier has the headers of a request for what reads the caller's trace. It returns copies: a span may outlive the request.
type carrier struct{ c *fiber.Ctx }

// Get implements propagation.TextMapCarrier.
func (h carrier) Get(key string) string { return string(h.c.Request().Header.Peek(key)) }

// Set implements propagation.TextMapCarrier. It is for those who call others.
func (carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (carrier) Keys() []string { return nil }
