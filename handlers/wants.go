package handlers

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// wantBody is what a body says of one want. What may be absent and must not be 0 is a pointer.
type wantBody struct {
	Name   string    `json:"name"`
	Secret *string   `json:"secret"`
	Lease  *duration `json:"lease"`
	Port   *int      `json:"port"`
	Prefer *int      `json:"prefer"`
	Count  *int      `json:"count"`
}

func (b wantBody) want() allocator.Want {
	return allocator.Want{
		Name: b.Name, Secret: givenSecret(b.Secret), Lease: time.Duration(given(b.Lease)),
		Port: given(b.Port), Prefer: given(b.Prefer), Count: given(b.Count),
	}
}

// given tells the allocator of a number that may be absent, which to it is 0. One that is 0 becomes -1, which is as far
// out of bounds.
func given[T int | duration](value *T) T {
	switch {
	case value == nil:
		return 0
	case *value == 0:
		return -1
	}
	return *value
}

// givenSecret tells the allocator of a secret that may be absent, which to it is empty. One that is empty becomes what is no
// secret either.
func givenSecret(secret *string) string {
	switch {
	case secret == nil:
		return ""
	case *secret == "":
		return "none"
	}
	return *secret
}

// asked is a call for ports: what is wanted, and for how long it may wait in line.
type asked struct {
	want  allocator.Want
	wants []allocator.Want // nil where it is one
	wait  time.Duration
	ctx   context.Context // of the call; stop ends it
	stop  func()
}

// readAsked reads a call for ports. Where there is no error, stop has to be called when the call is over.
func (s *Server) readAsked(c *fiber.Ctx) (a asked, err error) {
	if a.want, a.wants, err = decodeWants(c); err != nil {
		return a, err
	}
	if a.wait, err = patience(c); err != nil {
		return a, err
	}
	a.ctx, a.stop = s.whileWanted(c, a.wait)
	return a, nil
}

// decodeWants reads a body that is one want, or a list of them.
func decodeWants(c *fiber.Ctx) (want allocator.Want, wants []allocator.Want, err error) {
	if !isList(c.Request().Body()) {
		var body wantBody
		err := decode(c, &body)
		return body.want(), nil, err
	}
	if tooMany(c.Request().Body()) {
		return want, nil, allocator.Invalid(allocator.FieldError{Field: "body", Detail: fmt.Sprintf("must list 1 to %d", allocator.MaxWants)})
	}
	var list []wantBody
	if err := decode(c, &list); err != nil {
		return allocator.Want{}, nil, err
	}
	wants = make([]allocator.Want, len(list))
	for i, body := range list {
		wants[i] = body.want()
	}
	return allocator.Want{}, wants, nil
}

// tooMany reports whether a list has more items than a call may ask for. It looks no further than at the first too many, for
// to decode them all would take long.
func tooMany(list []byte) bool {
	d := jsontext.NewDecoder(bytes.NewReader(list))
	_, err := d.ReadToken()
	for n := 0; err == nil && d.PeekKind() != ']'; n++ {
		if n == allocator.MaxWants {
			return d.PeekKind() > 0
		}
		err = d.SkipValue()
	}
	return false
}
