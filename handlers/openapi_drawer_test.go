package handlers

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
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

// operation is one of the document, under one of its servers.
type operation struct {
	*openapi3.Operation
	method, path string // with the server's
	parameters   openapi3.Parameters
}

func newDrawer(seed uint64) *drawer {
	d := &drawer{Rand: rand.New(rand.NewPCG(seed, seed)), values: map[string][]string{
		"pool": {"default", "host"}, "service": {"django", "flask", "django", "flask"},
		"start": {"5000", "7000", "7000"}, "end": {"5199", "6004", "7009"}, "port": {"5000", "5001", "5002", "5010", "6000", "6001"},
		"prefer": {"5001", "6001"}, "count": {"1", "2", "3"}, "lease": {"60", "1.5", "90s", "1h", "30d"}, "cooldown": {"0", "0s", "0.1"},
		"wait": {"0", "0.001", "10ms", ".01"}, "limit": {"1", "2", "1000"}, "cursor": {"0", "5001"}, "If-Match": {"*", `"1"`, `"1" , "2"`},
	}}
	for i := range 40 {
		d.values["name"] = append(d.values["name"], fmt.Sprint("web-", i))
	}
	for path, item := range document().Paths.Map() {
		for _, mount := range mounts(item) {
			for method, o := range item.Operations() {
				d.operations = append(d.operations, operation{o, method, strings.TrimSuffix(mount, "/") + path, append(slices.Clone(item.Parameters), o.Parameters...)})
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

// request draws one: half of them as the document has it, and half one step off.
func (d *drawer) request() *drawn {
	o := pick(d, d.operations)
	if slices.Contains(o.Tags, "operation") { // less is to be seen there
		o = pick(d, d.operations)
	}
	d.subject = nil
	if len(d.subjects) > 0 && d.IntN(5) > 0 {
		d.subject = pick(d, d.subjects)
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
	for _, ref := range o.parameters {
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
	d.subjects = d.subjects[max(0, len(d.subjects)-3):]
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
	kind := pick(d, s.Type.Slice())
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
		return float64(d.number(s)) + pick(d, []float64{0, 0, 0.25, 0.001})
	}
	return d.matching(s)
}

func (d *drawer) likely(field string) string {
	if d.IntN(8) == 0 {
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

func pick[T any](d *drawer, of []T) T { return of[d.IntN(len(of))] }
