package handlers

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// drawer draws requests.
type drawer struct {
	*rand.Rand
	operations []operation
	values     map[string][]string // by the field: what is likely to be there
	subjects   []map[string]string // the same of what answers told of
	subject    map[string]string   // the one that the request being drawn is about
}

// operation is one of the document, under one of its paths.
type operation struct {
	*openapi3.Operation
	method, path string
}

func newDrawer(seed uint64) *drawer {
	d := &drawer{Rand: rand.New(rand.NewPCG(seed, seed)), values: map[string][]string{
		"pool": {"default", "host"}, "service": {"django", "flask", "django", "flask", "spare"},
		"start": {"5000", "7000", "7000"}, "end": {"5199", "6004", "7009"}, "port": {"5000", "5001", "5002", "5010", "6000", "6001"},
		"prefer": {"5001", "6001"}, "count": {"1", "2", "3"}, "align": {"2", "3", "64"}, "lease": {"60", "1.5", "90s", "1h", "30d"}, "default_lease": {"60", "1h"}, "max_lease": {"60", "30d"}, "cooldown": {"0", "0s", "0.1"},
		"wait": {"0", "0.001", "10ms", ".01"}, "limit": {"1", "2", "1000"}, "cursor": {"0", "5001"}, "host": {"ci.example", "10.0.0.7", "[::1]"},
		"name_prefix": {"web-", "web-1"}, "label": {"job=4711", "job="}, "job": {"4711", ""},
		"If-Match": {"*", `"1"`, `"1" , "2"`},
	}}
	for i := range 40 {
		d.values["name"] = append(d.values["name"], fmt.Sprint("web-", i))
	}
	for path, item := range document().Paths.Map() {
		for method, o := range item.Operations() {
			d.operations = append(d.operations, operation{o, method, path})
			if below, ok := strings.CutPrefix(path, poolPath); ok { // the shorter path of the pool "default"
				d.operations = append(d.operations, operation{o, method, defaultMount + below})
			}
		}
	}
	slices.SortFunc(d.operations, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return d
}

// drawn is a request.
type drawn struct {
	operation, method, path, body string
	fields                        map[string]string // of the path
	query                         url.Values
	headers                       []string
	step                          string // what is done to it so that it may be one step off
}

func (r *drawn) url() string {
	path := r.path
	for name, value := range r.fields {
		path = strings.Replace(path, "{"+name+"}", value, 1)
	}
	if len(r.query) > 0 {
		path += "?" + r.query.Encode()
	}
	return path
}

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

// request draws one: half of them as the document has it, and half one step off.
func (d *drawer) request() *drawn {
	o := pick(d, d.operations)
	if isDull := slices.Contains(o.Tags, "operation") || slices.Contains(o.Tags, "events"); isDull && d.IntN(4) > 0 { // less is to be seen there
		o = pick(d, d.operations)
	}
	d.subject = nil
	subjects := d.subjects
	if strings.Contains(o.path, "{secret}") { // of an offer
		subjects = slices.DeleteFunc(slices.Clone(subjects), func(s map[string]string) bool { return s["If-Match"] != "" })
	}
	if len(subjects) > 0 && d.IntN(5) > 0 {
		d.subject = pick(d, subjects)
		if d.subject["pool"] != "default" && !strings.HasPrefix(o.path, poolPath) {
			d.subject = nil
		}
	}
	r := &drawn{operation: o.OperationID, method: o.method, path: o.path, step: "nothing off", query: url.Values{}, fields: map[string]string{
		"pool": d.text("pool", document().Components.Schemas["Name"].Value),
	}}
	if r.method == "GET" && d.IntN(10) == 0 {
		r.method = "HEAD"
	}
	for _, ref := range o.Parameters {
		p := ref.Value
		if !p.Required && d.IntN(2) > 0 {
			continue
		}
		value := d.text(p.Name, p.Schema.Value)
		switch p.In {
		case "path":
			r.fields[p.Name] = value
		case "query":
			r.query.Set(p.Name, value)
		case "header":
			r.headers = append(r.headers, p.Name, value)
		}
	}
	if body := o.RequestBody; body != nil && (body.Value.Required || d.IntN(2) == 0) {
		text, _ := json.Marshal(d.value("", body.Value.Content["application/json"].Schema.Value))
		r.body = string(text)
	}
	if d.IntN(2) == 0 {
		r.step = pick(d, stepNames)
		steps[r.step](d, r)
	}
	return r
}

// learn remembers what an answer tells of, so that further requests may be about it.
func (d *drawer) learn(r *drawn, answer answer) {
	var told struct {
		Service, Name, Secret string
		Port                  int
		Fence                 int64
	}
	if json.Unmarshal([]byte(answer.body), &told) != nil || told.Secret == "" {
		if answer.status == 201 && told.Service == "" && told.Name != "" { // a service
			d.values["service"][2+d.IntN(2)] = told.Name
		}
		return // or it is a list
	}
	pool := "default"
	if strings.HasPrefix(r.path, poolPath) {
		pool, _ = url.PathUnescape(r.fields["pool"])
	}
	port := strconv.Itoa(told.Port)
	subject := map[string]string{
		"pool": pool, "service": told.Service, "name": pick(d, []string{"", "", told.Name}), "port": pick(d, []string{port, told.Name}), "secret": told.Secret,
		"Portmaster-Secret": told.Secret,
	}
	if told.Fence > 0 {
		subject["If-Match"] = fmt.Sprintf(`"%d"`, told.Fence)
	}
	d.subjects = append(d.subjects, subject)
	d.subjects = d.subjects[max(0, len(d.subjects)-4):]
}

const poolPath = "/v1/pools/{pool}"

// text draws a value as it stands in a path, a query or a header.
func (d *drawer) text(field string, s *openapi3.Schema) string {
	switch value := d.value(field, s).(type) {
	case string:
		return value
	default:
		text, _ := json.Marshal(value)
		return string(text)
	}
}

// value draws a value that a schema allows, more or less: a likely one of the field, or any.
func (d *drawer) value(field string, s *openapi3.Schema) any {
	if len(s.OneOf) > 0 {
		return d.value(field, pick(d, s.OneOf).Value)
	}
	if s.Const != nil {
		return s.Const
	}
	if len(s.Enum) > 0 {
		return pick(d, s.Enum)
	}
	kind := pick(d, s.Type.Slice())
	if kind == "null" {
		return nil
	}
	if text := d.likely(field); text != "" {
		if kind == "string" {
			return text
		}
		if json.Valid([]byte(text)) && text[0] != '"' {
			return json.Number(text)
		}
	}
	switch kind {
	case "object":
		object := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			if slices.Contains(s.Required, name) || d.IntN(4) == 0 {
				object[name] = d.value(name, s.Properties[name].Value)
			}
		}
		if more := s.AdditionalProperties.Schema; more != nil {
			for range int(s.MinProps) + d.IntN(3) {
				name := pick(d, []string{"job", "url", d.matching(s.PropertyNames.Value)})
				object[name] = d.value(name, more.Value)
			}
		}
		return object
	case "array":
		list := make([]any, int(s.MinItems)+d.IntN(3))
		if d.IntN(20) == 0 {
			list = make([]any, *s.MaxItems)
		}
		for i := range list {
			list[i] = d.value(field, s.Items.Value)
		}
		return list
	case "integer":
		return d.number(s)
	case "number":
		return min(float64(d.number(s))+pick(d, []float64{0, 0, 0.25, 0.001}), *s.Max)
	}
	return d.matching(s)
}

func (d *drawer) likely(field string) string {
	if d.IntN(16) == 0 {
		return ""
	}
	if text := d.subject[field]; text != "" && d.IntN(10) > 0 {
		return text
	}
	if len(d.values[field]) > 0 {
		return pick(d, d.values[field])
	}
	return ""
}

// number draws a whole number, often the least or the greatest.
func (d *drawer) number(s *openapi3.Schema) int {
	low, high := int(*s.Min), int(*s.Max)
	return pick(d, []int{low, high, low + d.IntN(high-low+1)})
}

// matching draws a string.
func (d *drawer) matching(s *openapi3.Schema) string {
	text := ""
	if s.Pattern == "" {
		for range int(s.MinLength) + d.IntN(20) {
			text += pick(d, []string{"a", "5", " ", "ä", "\"", "\\", "\n", "\U0001f600"})
		}
		return text
	}
	parsed, err := syntax.Parse(s.Pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	return d.match(parsed)
}

// match draws a string that a regular expression matches.
func (d *drawer) match(re *syntax.Regexp) (text string) {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		i := 2 * d.IntN(len(re.Rune)/2)
		return string(re.Rune[i] + d.Int32N(re.Rune[i+1]-re.Rune[i]+1))
	case syntax.OpAlternate:
		return d.match(pick(d, re.Sub))
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			text += d.match(sub)
		}
		return text
	case syntax.OpStar:
		return d.repeat(re.Sub[0], 0, 3)
	case syntax.OpPlus:
		return d.repeat(re.Sub[0], 1, 3)
	case syntax.OpQuest:
		return d.repeat(re.Sub[0], 0, 1)
	case syntax.OpRepeat:
		return d.repeat(re.Sub[0], re.Min, pick(d, []int{re.Max, min(re.Max, re.Min+3)}))
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpEmptyMatch:
		return ""
	}
	panic("the drawer does not know " + re.Op.String())
}

func (d *drawer) repeat(re *syntax.Regexp, low, high int) (text string) {
	n := pick(d, []int{low, high, low + d.IntN(high-low+1)})
	for range n {
		text += d.match(re)
	}
	return text
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

func pick[T any](d *drawer, of []T) T { return of[d.IntN(len(of))] }
