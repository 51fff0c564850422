package handlers

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"portmaster/allocator"
)

// The codes of errors that only HTTP knows.
const (
	codeOK                   = "OK"
	codeNotFound             = "NOT_FOUND"
	codeMethodNotAllowed     = "METHOD_NOT_ALLOWED"
	codeTooLarge             = "TOO_LARGE"
	codeUnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE"
	codeTimeout              = "TIMEOUT"
	codeInternal             = "INTERNAL"
	codeUnauthenticated      = "UNAUTHENTICATED"
	codeForbidden            = "FORBIDDEN"
	codeMisdirected          = "MISDIRECTED"
	codeRateLimited          = "RATE_LIMITED"
)

// problems has the status and the title of every code.
var problems = map[string]struct {
	status int
	title  string
}{
	string(allocator.CodeInvalid):              {400, "The request is malformed or out of bounds"},
	string(allocator.CodeServiceNotFound):      {404, "No such service"},
	string(allocator.CodeOfferNotFound):        {404, "No such offer"},
	string(allocator.CodePortNotFound):         {404, "No such allocation"},
	string(allocator.CodeServiceExists):        {409, "The service already exists"},
	string(allocator.CodeRangeOverlap):         {409, "The range overlaps another service's"},
	string(allocator.CodeRangeInUse):           {409, "A port outside the new range is in use"},
	string(allocator.CodeServiceInUse):         {409, "The service has ports in use"},
	string(allocator.CodeLimitReached):         {409, "The limit is reached"},
	string(allocator.CodeNameTaken):            {409, "The instance name already has a port"},
	string(allocator.CodeOfferAccepted):        {409, "The offer was accepted"},
	string(allocator.CodeOfferRejected):        {409, "The offer was rejected"},
	string(allocator.CodeExhausted):            {409, "No port is free"},
	string(allocator.CodePortTaken):            {409, "The port is taken"},
	string(allocator.CodeSecretMismatch):       {403, "The allocation has another secret"},
	string(allocator.CodeNotOwner):             {403, "It belongs to another owner"},
	string(allocator.CodeQuotaExceeded):        {403, "The owner may not hold so many ports"},
	string(allocator.CodePreconditionRequired): {428, "A release requires the allocation's secret or its ETag"},
	string(allocator.CodePreconditionFailed):   {412, "The port or name has another holder now"},
	string(allocator.CodeTooManyWaiting):       {429, "Too many calls are waiting"},
	string(allocator.CodeUnavailable):          {503, "Unavailable; nothing was done"},
	string(allocator.CodeOutcomeUnknown):       {504, "The outcome is unknown"},

	codeNotFound:             {404, "No such route"},
	codeMethodNotAllowed:     {405, "The route does not support this method"},
	codeTooLarge:             {413, "The request is too large"},
	codeUnsupportedMediaType: {415, "The body must be plain application/json"},
	codeTimeout:              {408, "The request took too long to arrive"},
	codeInternal:             {500, "Internal error"},
	codeUnauthenticated:      {401, "The caller is unknown"},
	codeForbidden:            {403, "The caller may not do this"},
	codeMisdirected:          {421, "The server is not called by this name"},
	codeRateLimited:          {429, "Too many calls"},
}

// panicked is the error of a handler that panicked.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// fail answers a request with the problem of err, logs it if an operator should know, and returns its code.
func (s *Server) fail(c *fiber.Ctx, err error) string {
	if errors.Is(err, allocator.ErrAbandoned) { // nobody reads the answer
		c.Status(statusHungUp)
		return codeHungUp
	}
	code, problem := explain(err)
	status := problems[code].status
	if problem.RetryAfter > 0 {
		c.Set(fiber.HeaderRetryAfter, strconv.Itoa(int((problem.RetryAfter+time.Second-1)/time.Second)))
	}
	if code == codeUnauthenticated {
		c.Set(fiber.HeaderWWWAuthenticate, "Bearer")
	}
	renderAs(c, "application/problem+json", status, encode(bodyOfProblem(code, problem, requestID(c))))
	switch {
	case code == codeInternal:
		attrs := []any{slog.String("id", requestID(c)), slog.Any("error", err)}
		if p, ok := errors.AsType[*panicked](err); ok {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
		s.log.Error("internal error", attrs...)
	case status >= 500:
		s.outages.Do(func() { s.log.Error("call failed", slog.String("id", requestID(c)), slog.Any("error", err)) })
	}
	return code
}

// explain returns what err means to the caller. An unknown error is an internal one; its text goes to the log only.
func explain(err error) (code string, problem *allocator.Error) {
	if known, ok := errors.AsType[*allocator.Error](err); ok {
		return string(known.Code), known
	}
	if http, ok := errors.AsType[*fiber.Error](err); ok {
		switch http.Code {
		case fiber.StatusNotFound:
			return codeNotFound, &allocator.Error{Detail: "there is no such route; see /openapi.yaml"}
		case fiber.StatusMethodNotAllowed:
			return codeMethodNotAllowed, &allocator.Error{Detail: "the Allow header lists the methods of this route"}
		case fiber.StatusRequestEntityTooLarge, fiber.StatusRequestHeaderFieldsTooLarge:
			return codeTooLarge, &allocator.Error{Detail: "the header or the body exceeds the limit"}
		case fiber.StatusUnsupportedMediaType:
			return codeUnsupportedMediaType, &allocator.Error{Detail: http.Message}
		case fiber.StatusRequestTimeout:
			return codeTimeout, &allocator.Error{Detail: "the request did not arrive in time"}
		case fiber.StatusBadRequest:
			return string(allocator.CodeInvalid), allocator.Invalid(allocator.FieldError{Field: "request", Detail: "is not well-formed HTTP"})
		}
	}
	return codeInternal, &allocator.Error{Detail: "the request failed; the server's log says why, under this request_id"}
}

// unmatched answers a request that no route handles: an unknown path or method, or malformed HTTP.
func (s *Server) unmatched(c *fiber.Ctx, err error) error {
	identify(c)
	code := s.fail(c, err)
	s.audit.call(c, s.metrics.unmatched.route, code)
	s.metrics.unmatched.observe(outcome{status: c.Response().StatusCode(), code: code}, 0)
	return nil
}

// refuse answers a request that does not reach a route.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, err error) {
	c := s.app.AcquireCtx(ctx)
	defer s.app.ReleaseCtx(c)
	s.unmatched(c, err)
}

// problemBody is the body of an error (RFC 9457).
type problemBody struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      string       `json:"code"`
	RequestID string       `json:"request_id"`
	Errors    []fieldError `json:"errors,omitempty"`
}

type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func bodyOfProblem(code string, problem *allocator.Error, id string) problemBody {
	p := problems[code]
	body := problemBody{"urn:portmaster:problem:" + code, p.title, p.status, problem.Detail, code, id, nil}
	for _, f := range problem.Fields {
		body.Errors = append(body.Errors, fieldError(f))
	}
	return body
}
