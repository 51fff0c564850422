package handlers

import (
	"flag"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// beyondSchema are the refusals that no schema can say: those of a field (in a list behind its place) with a detail, each
// with the words that say so in openapi.yaml.
var beyondSchema = []struct{ field, detail, words string }{
	{"end", "^must not be below start$", "the last must not be below the first"},
	{"start|end", "^must be within [0-9]+-[0-9]+$", "Either `start` and `end` are given, or `ranges`"},
	{"ranges", "^cannot be combined with start and end$", "Either `start` and `end` are given, or `ranges`"},
	{"ranges", " overlap$|^[0-9]+-[0-9]+ must be within ", "No two may overlap, and none may end before it starts"},
	{"exclude", "^[0-9]+-[0-9]+ must be within ", "None may end before it starts"},
	{"exclude", "^leaves ", "What is left must be 1 to 32 ranges"},
	{"start|end", "^is required, or ranges: ", "Of a service with several ranges, `start` is required if `end` is given"},
	{"name", "^must be the name in the path", "The same as in the path."},
	{"port", "^must be within (the range|one of the ranges) ", "It must be within the range of the service, and so must the block"},
	{"prefer", "^must be within (the range|one of the ranges) ", "It must be within the range of the service, too"},
	{"count", "^is more than the ", "not more than the service has"},
	{"align", "^is met by none of ", "The service must have ports that can be met by it"},
	{"align", "^does not divide the port that this secret has", "as must the port that a known secret already has"},
	{"port|prefer", "^must be a multiple of align$", "A `port` or `prefer` must be one, too"},
	{"body", "^asks for ", "at most 256 (a setting may be lower)"},
	{"port|count", "^is not the one that this secret has", "So are a `port` and a `count` other than those"},
	{"name|secret|port", "^is given twice$", "No two have the same name or secret, or ask for the same port"},
	{"secret", "^belongs to another offer$", "A secret that belongs to the offer of another name or service is refused"},
	{"existing", "^is only for a claim: ", "Only for a claim; an offer with it is refused"},
	{"lease", "^is longer than ", "The longest lease that a request, an acceptance or a renewal may ask for"},
	{"default_lease", "^must not be longer than max_lease$", "It must not be longer than `max_lease`"},
	{"lease", "^is required: this allocation has none yet$", "`lease` is required then"},
	{"(default_|max_)?lease", "^must be within 1s-30d$|^must be seconds", "within 1s-30d"},
	{"cooldown", "^must be within 0s-30d$|^must be seconds", "within 0s-30d"},
	{"(default_|max_)?lease|cooldown", "^must be a whole number of milliseconds$", "Whole milliseconds"},
	{"wait", "^must be within 0s-", "The longest wait is a setting of the server"},
	{"wait", "^must be seconds", "Whole nanoseconds"},
	{"wait", "^cannot be combined with port", "A call cannot wait for a specific `port`"},
	{"since", "^must be before until$", "of which the first must be earlier"},
	{"since|until|at", "^must be a time such as", "RFC 3339"},
	{"at", "^needs port or name$", "It needs `port` or `name`"},
	{"at", "^cannot be combined with since or until$", "cannot be combined with `since` or `until`"},
	{"cursor", "^is not a cursor that a list returned$", "any other value may be refused"},
	{"host", "^must be a host name or an IP address", "a host name or an IP address, without a port"},
	{"labels|label", "^has the key ", "by keys of 1 to 63 of `a-z 0-9 _`, which begin with a letter"},
	{"labels|label", "^has a wrong value for ", "A value has up to 256 bytes of UTF-8"},
	{"labels", "^has [0-9]+ labels; at most 16 are allowed$", "The allocation then has at most 16 labels"},
	{"labels", "^has keys and values of ", "all keys and values together have up to 2,048"},
	{"query", "^must have owner, name, name_prefix or label$", "At least one filter is required"},
	{"limit", "^must be within ", "in digits without leading zeros"},
	{".*", "^is given twice$", "unknown and duplicate fields are refused"},
	{"start|end|port|prefer|count|align|ranges|exclude", "^must be a whole number$", "`5000.0` and `5e3` are refused"},
}

var documentRequests = flag.Int("document.requests", 2000, "how many requests TestRequestsDrawnFromDocument makes on each store, at the least")

// Requests that are drawn from the document, and others that are one step off, are answered as the document says: what
// its schemas refuse is refused, what they allow is not called malformed, and every answer is one that it describes.
func TestRequestsDrawnFromDocument(t *testing.T) {
	text := strings.Join(strings.Fields(string(openAPI)), " ")
	for _, refusal := range beyondSchema {
		if !strings.Contains(text, refusal.words) {
			t.Errorf("openapi.yaml does not say: %s", refusal.words)
		}
	}
	const seed = 28
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		t.Parallel()
		a := newAPI(t, store, func(s *settings) { s.allocator.MaxWait = 20 * time.Millisecond })
		d := newDrawer(seed)
		seen := map[string]int{}
		unseen := func() (all []string) {
			for _, o := range d.operations {
				for _, class := range []string{" 2xx", " 4xx"} {
					if seen[o.OperationID+class] == 0 && !(class == " 4xx" && slices.Contains(o.Tags, "operation")) {
						all = append(all, o.OperationID+class)
					}
				}
			}
			return all
		}
		for i := 0; i < *documentRequests || i < 4**documentRequests && len(unseen()) > 0; i++ {
			if i%100 == 0 {
				for _, pool := range d.values["pool"] { // a service that has a port stays, and a spare one can be removed
					a.put("/v1/pools/"+pool+"/services/spare", `{"start":8000,"end":8009}`)
					a.put("/v1/pools/"+pool+"/services/django", `{"start":5000,"end":5199}`)
					a.post("/v1/pools/"+pool+"/services/django/ports", `{"name":"keeper","port":5199}`)
					a.put("/v1/pools/"+pool+"/services/flask", `{"start":6000,"end":6004,"cooldown":0.1}`)
					a.post("/v1/pools/"+pool+"/services/flask/ports", `{"name":"keeper","port":6004}`)
				}
			}
			r := d.request()
			call := a.start(r.method, r.url(), r.body, r.headers...)
			answer := call.answer()
			if fault := judge(call, answer); fault != "" || t.Failed() {
				t.Fatalf("request %d of seed %d, %s: %s\n%s %s %q\n%s\n%s", i, seed, r.step, fault, r.method, r.url(), r.headers, r.body, answer)
			}
			d.learn(r, answer)
			seen[r.operation+" "+strconv.Itoa(answer.status/100)+"xx"]++
		}

		if never := unseen(); len(never) > 0 {
			t.Errorf("no request got %q: %v", never, seen)
		}
	})
}

// judge says how an answer differs from what the document says of its request.
func judge(c *call, r answer) string {
	found, _ := operationOf(c.request.Method, c.request.URL.EscapedPath())
	if found == nil {
		if r.status != 404 && r.status != 405 {
			return "no operation is asked, and the answer is neither 404 nor 405"
		}
		return ""
	}
	if r.status < 300 {
		return "" // else the client of all tests has said so
	}
	refused := refusal(c.request, c.sent)
	malformed := r.status == 400 || r.status == 415 || r.status == 413 || r.status == 405
	switch {
	case refused != nil && !malformed:
		return "the document refuses this: " + refused.Error()
	case refused == nil && malformed && r.status != 400:
		return "the document allows this"
	case refused == nil && r.status == 400 && c.request.Method != http.MethodHead:
		for _, fault := range read[problem](r).Errors {
			if !isBeyondSchema(fault.Field, fault.Detail) {
				return "the document allows this: " + fault.Field + " " + fault.Detail
			}
		}
	}
	return ""
}

var placeInList = regexp.MustCompile(`^\[[0-9]+\]\.`)

func isBeyondSchema(field, detail string) bool {
	field = placeInList.ReplaceAllString(field, "")
	for _, refusal := range beyondSchema {
		if regexp.MustCompile("^("+refusal.field+")$").MatchString(field) && regexp.MustCompile(refusal.detail).MatchString(detail) {
			return true
		}
	}
	return false
}
