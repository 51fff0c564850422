package client

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
	"unsafe"
)

// A machine that is suspended stops one of the two clocks in a time.Time. The time that passed is that of the other.
func TestPassed(t *testing.T) {
	const hour = 3600
	now := time.Now()
	wall, monotonic := now, now
	(*[2]uint64)(unsafe.Pointer(&wall))[0] -= hour << 30 // the seconds of the clock on the wall stand above 30 bits of nanoseconds
	(*[2]uint64)(unsafe.Pointer(&monotonic))[1] -= hour * uint64(time.Second)
	for what, since := range map[string]time.Time{"wall": wall, "monotonic": monotonic, "alone": now.Round(0).Add(-time.Hour)} {
		if p := passed(since); p < time.Hour || p > 2*time.Hour {
			t.Errorf("%s: %s passed since %s", what, p, since)
		}
	}
	if p := passed(now); p > time.Minute {
		t.Errorf("%s passed", p)
	}
}

// A lease that an attempt without an answer may have begun is taken to have begun with the first one.
func TestLeaseBegan(t *testing.T) {
	for _, test := range []struct {
		first, second int  // statuses
		waits         bool // for the second attempt
	}{{504, 200, false}, {504, 201, true}, {503, 201, true}} {
		var arrived []time.Time
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if arrived = append(arrived, time.Now()); len(arrived) == 1 {
				w.WriteHeader(test.first)
				return
			}
			w.WriteHeader(test.second)
			w.Write([]byte(`{"service":"ci","name":"a","port":20000,"created":"2026-11-25T15:14:35Z","expires":"2026-11-25T15:15:35Z","fence":1}`))
		}))
		defer s.Close()
		c, _ := New(s.URL, Options{})
		defer c.Close()
		for _, claims := range []bool{true, false} {
			arrived = nil
			var a Allocation
			var err error
			if claims {
				a, err = c.Claim(t.Context(), "ci", Request{Name: "a", Lease: time.Minute}, Wait{})
			} else {
				a, err = c.Accept(t.Context(), "ci", NewSecret(), 0)
			}
			if err != nil || len(arrived) != 2 || a.Lease != time.Minute {
				t.Fatal(err, arrived, a)
			}
			if second := a.sent.After(arrived[0]); second != test.waits || a.sent.After(arrived[1]) {
				t.Errorf("%+v: it began at %s, attempts arrived at %s", test, a.sent, arrived)
			}
		}
	}
}
