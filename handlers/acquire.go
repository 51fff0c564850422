package handlers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// requestBody is a request as a body has it. A field that may be absent is a pointer.
type requestBody struct {
	Name   string    `json:"name"`
	Secret *string   `json:"secret"`
	Lease  *duration `json:"lease"`
	Port   *int      `json:"port"`
	Prefer *int      `json:"prefer"`
	Count  *int      `json:"count"`
	Align  *int      `json:"align"`
	Labels labels    `json:"labels"`

	Existing bool `json:"existing"`
}

func (b requestBody) request() allocator.Request {
	return allocator.Request{
		Name: b.Name, Secret: givenSecret(b.Secret), Lease: (*time.Duration)(b.Lease), Port: b.Port, Prefer: b.Prefer, Count: b.Count, Align: b.Align,
		Labels: allocator.NewLabels(b.Labels), Existing: b.Existing,
	}
}

// givenSecret returns a secret for the allocator, to which "" means absent. A secret that is given as "" becomes another text
// that is no secret.
func givenSecret(secret *string) string {
	switch {
	case secret == nil:
		return ""
	case *secret == "":
		return "none"
	}
	return *secret
}

// acquisition is a call for ports, as read from the body and the query.
type acquisition struct {
	requests []allocator.Request
	isList   bool // the body is a list, and not a single request
	wait     allocator.Wait
	ctx      context.Context // of the call; ended by stop
	stop     func()
}

// readAcquisition reads a call for ports. If it returns no error, the caller has to call stop when the call is over.
func (s *Server) readAcquisition(c *fiber.Ctx) (a acquisition, err error) {
	a.isList = isList(c.Request().Body())
	if a.requests, err = decodeRequests(c, a.isList); err != nil {
		return a, err
	}
	s.audit.asked(c, a.requests)
	if a.wait.Longest, err = parseWait(c); err != nil {
		return a, err
	}
	a.ctx, a.stop = s.waitContext(c, &a.wait)
	return a, nil
}

// decodeRequests reads a body that is a single request or a list of them.
func decodeRequests(c *fiber.Ctx, isList bool) ([]allocator.Request, error) {
	if !isList {
		var body requestBody
		err := decode(c, &body)
		return []allocator.Request{body.request()}, err
	}
	if tooMany(c.Request().Body()) {
		return nil, allocator.Invalid(allocator.FieldError{Field: "body", Detail: fmt.Sprintf("must list 1 to %d requests", allocator.MaxRequests)})
	}
	var list []requestBody
	if err := decode(c, &list); err != nil {
		return nil, err
	}
	requests := make([]allocator.Request, len(list))
	for i, body := range list {
		requests[i] = body.request()
	}
	return requests, nil
}

// fault returns the error of the call. If the body is a single request, the names of fields lose their "[0].", and an error
// other than INVALID loses its fields, since they only say which request of a list is at fault.
func (a acquisition) fault(err error) error {
	failed, ok := errors.AsType[*allocator.Error](err)
	if a.isList || !ok || len(failed.Fields) == 0 {
		return err
	}
	one := *failed
	one.Fields = nil
	if failed.Code == allocator.CodeInvalid {
		for _, f := range failed.Fields {
			one.Fields = append(one.Fields, allocator.FieldError{Field: strings.TrimPrefix(f.Field, "[0]."), Detail: f.Detail})
		}
	}
	return &one
}

// tooMany reports whether a list has more items than a call may have. It stops at the first item over the limit, since
// decoding all of them could take long.
func tooMany(list []byte) bool {
	d := jsontext.NewDecoder(bytes.NewReader(list))
	_, err := d.ReadToken()
	for n := 0; err == nil && d.PeekKind() != ']'; n++ {
		if n == allocator.MaxRequests {
			return d.PeekKind() > 0
		}
		err = d.SkipValue()
	}
	return false
}

// How metrics distinguish a call whose client hung up from one that failed. Load balancers use this status, too.
const (
	statusHungUp = 499
	codeHungUp   = "HUNG_UP"
)

// waits reports whether a request says how long it may wait.
func waits(c *fiber.Ctx) bool { return c.Context().QueryArgs().Has("wait") }

// parseWait reads how long a request may wait for a port: not at all if it does not say.
func parseWait(c *fiber.Ctx) (time.Duration, error) {
	if !waits(c) {
		return 0, nil
	}
	wait, err := parseSeconds(c.Query("wait"))
	if err != nil {
		return 0, allocator.Invalid(allocator.FieldError{Field: "wait", Detail: "must be seconds, such as 30 or 1.5, or a duration, such as 1m30s"})
	}
	return wait, nil
}

// waitContext returns the context of a call that may wait. It ends when the client hangs up or the server drains; its cause
// says which. waitContext sets how the call asks whether its client is still there, and where it notes how long it waited.
// A call that does not wait is over too soon for that.
func (s *Server) waitContext(c *fiber.Ctx, wait *allocator.Wait) (ctx context.Context, stop func()) {
	if wait.Longest <= 0 {
		return c.UserContext(), func() {}
	}
	wait.Stood = new(time.Duration)
	c.Locals(waitedKey{}, wait.Stood)
	ctx, end := context.WithCancelCause(s.withSpanOf(c, s.open))
	closed, leave, err := s.watcher.Watch(c.Context().Conn(), func() { end(allocator.ErrAbandoned) })
	if err != nil { // no socket to look at
		return ctx, func() { end(nil) }
	}
	wait.Abandoned = closed
	return ctx, func() {
		leave()
		end(nil)
	}
}

// waitedKey is where a request keeps how long its call waited.
type waitedKey struct{}

// waited returns how long the call of a request waited, and whether it could wait.
func waited(c *fiber.Ctx) (stood time.Duration, mayWait bool) {
	if stood, ok := c.Locals(waitedKey{}).(*time.Duration); ok {
		return *stood, true
	}
	return 0, false
}
