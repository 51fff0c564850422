package handlers

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"portmaster/allocator"
)

// FuzzDecode: the decoder never panics, every fault names a field, and what it takes it has understood as the standard
// library does.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"name":"django","description":"web","start":5000,"end":10000}`, `{"name":null}`, `{"":1}`,
		`{"name":"a","name":"b"}`, `{"name":"a"}x`, "{\"name\":\"\xff\"}", `{"start":1e3}`, `{"start":-0}`, `{"a":{"b":[1]}}`,
		`{"n\u0061me":"\ud83d\ude00"}`, `{"description":"\u0000"}`, `{"a/b":1}`, `{"end":9223372036854775808}`, `{"start":[]}`,
		`{"cooldown":1.5}`, `{"cooldown":"1h30m"}`, `{"cooldown":-0.000000001}`, `{"cooldown":1e9}`, `{"cooldown":null}`,
		`{"ranges":[{"start":1,"end":2},{}],"exclude":[5,{"start":6,"end":7},-0]}`, `{"exclude":["5"]}`, `{"exclude":[{"x":1}]}`, `{"ranges":[null]}`,
		`{"cooldown":"1d12h0.5m"}`, `{"cooldown":"0"}`, `{"cooldown":"-0s"}`, `{"cooldown":"106751.99d"}`, `{"cooldown":"0.1ns"}`,
	} {
		f.Add("application/json", []byte(seed))
	}
	f.Add("application/json; charset=utf-8", []byte(`{}`))
	f.Add("text/plain", []byte(`{}`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		read := func(contentType string, body []byte) (d definition, err error) {
			looked(t, contentType, body, func(c *fiber.Ctx) { err = decode(c, &d) })
			return d, err
		}
		d, err := read(contentType, body)
		if err != nil {
			refused(t, body, err)
			return
		}
		var standard struct {
			Name, Description string
			Start, End        int
			Ranges            []allocator.Range
			Exclude           []any
			Cooldown          any
			Pick              *string
		}
		if err := json.Unmarshal(body, &standard); err != nil || !sameSpan(time.Duration(d.Cooldown), standard.Cooldown) ||
			!slices.EqualFunc(d.Exclude, standard.Exclude, isRange) ||
			!reflect.DeepEqual(d, definition{standard.Name, standard.Description, standard.Start, standard.End, standard.Ranges, d.Exclude, d.Cooldown, pickOf(standard.Pick), nil, nil}) {
			t.Errorf("%q: %+v, and by the standard library %+v (%v)", body, d, standard, err)
		}
		again, err := json.Marshal(map[string]any{
			"name": d.Name, "description": d.Description, "start": d.Start, "end": d.End,
			"cooldown": json.RawMessage(big.NewRat(int64(d.Cooldown), int64(time.Second)).FloatString(9)),
			"pick":     cmp.Or(d.Pick, "rested"),
			"ranges":   append([]allocator.Range{}, d.Ranges...), "exclude": append([]allocator.Range{}, rangesIn(d.Exclude)...),
		})
		if err != nil {
			t.Fatal(err)
		}
		if repeated, err := read("application/json", again); err != nil || !sameDefinition(repeated, d) {
			t.Errorf("%q: %+v, encoded again %+v (%v)", body, d, repeated, err)
		}
	})
}

// sameDefinition reports whether two definitions are. No list is the same as an empty one.
func sameDefinition(a, b definition) bool {
	lists := slices.Equal(a.Ranges, b.Ranges) && slices.Equal(a.Exclude, b.Exclude)
	a.Ranges, a.Exclude, b.Ranges, b.Exclude = nil, nil, nil, nil
	return lists && reflect.DeepEqual(a, b)
}

// isRange reports whether a port or a range is what the standard library reads.
func isRange(r portOrRange, standard any) bool {
	of, isObject := standard.(map[string]any)
	if !isObject {
		return any(float64(r.Start)) == standard && r.End == r.Start
	}
	number := func(field string) float64 { n, _ := of[field].(float64); return n }
	return float64(r.Start) == number("start") && float64(r.End) == number("end")
}

// FuzzDecodeRequests: the same of what is requested, one or a list. What is 0 where it is given is out of bounds to the allocator.
func FuzzDecodeRequests(f *testing.F) {
	for _, seed := range []string{
		``, ` `, `[`, `[]`, `{}`, `{"name":"web-01"}`, ` [ {"name":"a"} , {"name":"b","secret":"c"} ]`, `[null]`, `[[]]`, `[{"a":[{"b":1}]}]`,
		`{"lease":90,"port":5000,"prefer":5001,"count":2}`, `[{"lease":"1m"},{"lease":0.5},{"lease":0}]`, `{"port":0,"prefer":0,"count":0,"align":0}`,
		`{"0":1}`, `[{"0":1}]`, `[{"":1}]`, `[{"port":null}]`, `[1,2]`, `{"secret":""}`, `[{"secret":"a"},{"secret":""}]`, `[{}] []`, `{"lease":1e400}`, `{"lease":"9999999999999h"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var requests []allocator.Request
		var err error
		looked(t, "application/json", body, func(c *fiber.Ctx) { requests, err = decodeRequests(c, isList(body)) })
		if err != nil {
			refused(t, body, err)
			return
		}
		type request struct {
			Name                       string
			Secret                     *string
			Lease                      any
			Port, Prefer, Count, Align *int
		}
		var standard []request
		if !isList(body) {
			standard = make([]request, 1)
			err = json.Unmarshal(body, &standard[0])
		} else {
			err = json.Unmarshal(body, &standard)
		}
		if err != nil || len(requests) != len(standard) {
			t.Fatalf("%q: %+v, and by the standard library %+v (%v)", body, requests, standard, err)
		}
		for i, s := range standard {
			same := reflect.DeepEqual(requests[i], allocator.Request{
				Name: s.Name, Secret: givenSecret(s.Secret), Lease: requests[i].Lease, Port: s.Port, Prefer: s.Prefer, Count: s.Count, Align: s.Align,
			})
			isSpan := s.Lease == nil && requests[i].Lease == nil || requests[i].Lease != nil && sameSpan(*requests[i].Lease, s.Lease)
			if !same || !isSpan {
				t.Errorf("%q: %+v, and by the standard library %+v", body, requests[i], s)
			}
		}
	})
}

// looked lets a function look at a request as a handler does.
func looked(t *testing.T, contentType string, body []byte, look func(c *fiber.Ctx)) {
	t.Helper()
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.SetContentType(contentType)
	ctx.Request.SetBody(body)
	app := fiber.New()
	c := app.AcquireCtx(ctx)
	defer app.ReleaseCtx(c)
	look(c)
}

// refused holds the refusal of a body against what every one must have.
func refused(t *testing.T, body []byte, err error) {
	t.Helper()
	if invalid, ok := errors.AsType[*allocator.Error](err); ok {
		if invalid.Code != allocator.CodeInvalid || len(invalid.Fields) == 0 || invalid.Fields[0].Field == "" || invalid.Fields[0].Detail == "" {
			t.Errorf("%q: %#v", body, invalid)
		}
	} else if media, ok := errors.AsType[*fiber.Error](err); !ok || media.Code != 415 {
		t.Errorf("%q: %v", body, err)
	}
}

// days finds what the standard library has no unit for.
var days = regexp.MustCompile(`[0-9.]+d`)

// sameSpan reports whether a duration is what the standard library reads where it stands in JSON: a number of seconds, a
// text, or nothing.
func sameSpan(got time.Duration, standard any) bool {
	switch value := standard.(type) {
	case nil:
		return got == 0
	case float64:
		return math.Abs(got.Seconds()-value) <= 1e-9+math.Abs(value)*1e-12
	case string:
		value = days.ReplaceAllStringFunc(value, func(part string) string { return strings.Repeat(part[:len(part)-1]+"h", 24) })
		span, err := time.ParseDuration(value)
		return err == nil && (span-got).Abs() <= 24*64 // it may round each part
	}
	return false
}

// pickOf returns the pick of a text as a body has it.
func pickOf(text *string) pickField {
	switch {
	case text == nil, *text == "rested":
		return ""
	case *text == "":
		return "none"
	}
	return pickField(*text)
}
