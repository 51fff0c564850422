package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answer is what the server said.
type answer struct {
	t       testing.TB
	request string
	status  int
	header  http.Header
	body    string
}

func (r answer) String() string {
	var b bytes.Buffer
	r.header.Write(&b)
	return http.StatusText(r.status) + "\n" + b.String() + r.body[:min(len(r.body), 1000)]
}

// want fails the test where the status is another one.
func (r answer) want(status int) answer {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: %d, want %d\n%s", r.request, r.status, status, r)
	}
	return r
}

// problem wants an error.
func (r answer) problem(status int, code string) problem {
	r.t.Helper()
	p := read[problem](r.want(status))
	if p.Code != code || p.Status != status || p.Type != "urn:portmaster:problem:"+code || p.RequestID != r.header.Get("X-Request-ID") {
		r.t.Fatalf("%s: want %s\n%s", r.request, code, r)
	}
	return p
}

// invalid wants 400 INVALID with a fault for each of these fields, and no other.
func (r answer) invalid(fields ...string) {
	r.t.Helper()
	var named []string
	for _, fault := range r.problem(400, "INVALID").Errors {
		named = append(named, fault.Field)
	}
	if strings.Join(named, " ") != strings.Join(fields, " ") {
		r.t.Errorf("%s: faults at %q, want %q\n%s", r.request, named, fields, r)
	}
}

// read reads the answer's body.
func read[T any](r answer) (value T) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.body), &value); err != nil {
		r.t.Fatalf("%s: %v\n%s", r.request, err, r)
	}
	return value
}

type service struct {
	Name, Description string
	Start, End        int
	Cooldown          float64
	Created           time.Time
	Ports             ports
	Waiting           int
	Warnings          []string
}

type ports struct{ Total, Free, Offered, Allocated, Cooling int }

type offer struct {
	Service, Name    string
	Port, Count      int
	Secret           string
	Created, Expires time.Time
	Lease            float64
}

func (o offer) path() string { return "/v1/services/" + o.Service + "/offers/" + o.Secret }

type allocation struct {
	Service, Name    string
	Port, Count      int
	Created, Expires time.Time
	Fence            int64
	Secret           string // where it was claimed
}

func (a allocation) path() string { return fmt.Sprintf("/v1/services/%s/ports/%d", a.Service, a.Port) }

type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	RequestID                 string `json:"request_id"`
	Errors                    []struct{ Field, Detail string }
}
