package handlers

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// steps are the ways to make a request one step off. What is not there cannot be; then the request stays as it is.
var steps = map[string]func(d *drawer, r *drawn){
	"another method": func(d *drawer, r *drawn) {
		r.method = pick(d, []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"})
	},
	"another path":     func(d *drawer, r *drawn) { r.path = "/" + d.broken(r.path[1:]) },
	"a broken field":   func(d *drawer, r *drawn) { d.alter(r.fields, d.brokenField) },
	"an escaped field": func(d *drawer, r *drawn) { d.alter(r.fields, d.escaped) },
	"an unknown query": func(d *drawer, r *drawn) {
		r.query.Set(pick(d, []string{"dry_run", "Wait", "prefix", "limit", "wait"}), "1")
	},
	"a query given twice": func(d *drawer, r *drawn) { d.alterQuery(r, func(v []string) []string { return append(v, v[0]) }) },
	"a query without a value": func(d *drawer, r *drawn) {
		d.alterQuery(r, func([]string) []string { return []string{""} })
	},
	"a broken query": func(d *drawer, r *drawn) {
		d.alterQuery(r, func(v []string) []string { return []string{d.broken(v[0])} })
	},
	"a broken header": func(d *drawer, r *drawn) {
		if len(r.headers) > 0 {
			i := 2*d.IntN(len(r.headers)/2) + 1
			r.headers[i] = strings.TrimSpace(d.broken(r.headers[i]))
		}
	},
	"another type": func(d *drawer, r *drawn) {
		r.headers = append(r.headers, "Content-Type", pick(d, []string{"", "text/plain", "application/x-www-form-urlencoded"}))
	},
	"no body":       func(d *drawer, r *drawn) { r.body = "" },
	"half a body":   func(d *drawer, r *drawn) { r.body = r.body[:d.IntN(len(r.body)+1)] },
	"a body behind": func(d *drawer, r *drawn) { r.body += pick(d, []string{"{}", "x", " ", "null"}) },
	"a field twice": func(d *drawer, r *drawn) { r.body = firstField.ReplaceAllString(r.body, "{$1,$1$2") },
	"a whole number": func(d *drawer, r *drawn) {
		r.body = wholeNumber.ReplaceAllString(r.body, "$1"+pick(d, []string{".0", "e0", "E+0", ".5", "00"})+"$2")
	},
	"a step off in the body":       stepInBody,
	"another step off in the body": stepInBody, // most of what can be wrong is there
	"a third step off in the body": stepInBody,
}

var (
	firstField  = regexp.MustCompile(`\{("[a-z]+":[^,}]+)([,}])`)
	wholeNumber = regexp.MustCompile(`(:[0-9]+)([,}])`)
	stepNames   = slices.Sorted(maps.Keys(steps))
)

// stepInBody changes one place of a body.
func stepInBody(d *drawer, r *drawn) {
	var value any
	if json.Unmarshal([]byte(r.body), &value) == nil {
		text, _ := json.Marshal(d.stepOff(value))
		r.body = string(text)
	}
}

// stepOff changes one place of a JSON value.
func (d *drawer) stepOff(value any) any {
	if d.IntN(8) == 0 {
		return pick(d, []any{nil, true, 5000, 1.5, "x", "", []any{}, map[string]any{}, []any{value}})
	}
	switch value := value.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(value))
		switch n := d.IntN(len(names) + 2); {
		case n == len(names):
			value[pick(d, []string{"color", "Name", "", "lease", "port", "prefer", "count", "reason"})] = pick(d, []any{1, "x"})
		case n == len(names)+1 && n > 1:
			delete(value, pick(d, names))
		case n < len(names):
			value[names[n]] = d.stepOff(value[names[n]])
		}
		return value
	case []any:
		switch n := d.IntN(len(value) + 2); {
		case n < len(value):
			value[n] = d.stepOff(value[n])
		case n == len(value) && n > 0:
			for i := len(value); i <= 100; i++ {
				value = append(value, map[string]any{"name": fmt.Sprint("many-", i)})
			}
		}
		return value
	case float64:
		return value + pick(d, []float64{-1, 1, 0.5, 0.0001, -2 * value})
	case string:
		return d.broken(value)
	}
	return value
}

// broken changes one character of a text.
func (d *drawer) broken(text string) string {
	i, more := d.IntN(len(text)+1), pick(d, []string{"x", "0", "-", "ä", "\"", " ", "~", "X", "+", ".", strings.Repeat("a", 64)})
	switch d.IntN(6) {
	case 0, 1:
		return strings.ToValidUTF8(text[:i]+text[min(i+1, len(text)):], "")
	case 2:
		return strings.ToUpper(text)
	case 3:
		return pick(d, []string{"", `"` + text + `"`, "0" + text})
	}
	return strings.ToValidUTF8(text[:i], "") + more + strings.ToValidUTF8(text[i:], "")
}

func (d *drawer) brokenField(text string) string {
	return url.PathEscape(d.broken(text) + pick(d, []string{"", "", "/", "%", "%2D"}))
}

// escaped writes one character in percent-encoding, which changes nothing.
func (d *drawer) escaped(text string) string {
	i := d.IntN(len(text))
	return fmt.Sprintf("%s%%%02X%s", text[:i], text[i], text[i+1:])
}

func (d *drawer) alter(fields map[string]string, change func(string) string) {
	name := pick(d, slices.Sorted(maps.Keys(fields)))
	fields[name] = change(fields[name])
}

func (d *drawer) alterQuery(r *drawn, change func([]string) []string) {
	if len(r.query) > 0 {
		name := pick(d, slices.Sorted(maps.Keys(r.query)))
		r.query[name] = change(r.query[name])
	}
}
