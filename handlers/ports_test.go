package handlers

import (
	"fmt"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

func TestReadAllocation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.get("/v1/services/django/ports/web-01").problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "5000-5009")
		o := a.offer("django", "web-01")
		// A port that is only on offer is no allocation.
		a.get("/v1/services/django/ports/web-01").problem(404, "PORT_NOT_FOUND")
		a.get("/v1/services/django/ports/5000").problem(404, "PORT_NOT_FOUND")
		held := a.accept(o)
		for _, holder := range []string{"5000", "web-01"} {
			r := a.get("/v1/services/django/ports/" + holder).want(200)
			equal(t, holder, read[allocation](r), held)
			equal(t, "ETag", r.header.Get("ETag"), fmt.Sprintf(`"%d"`, held.Fence))
		}
		for _, holder := range []string{"5001", "4999", "05000", "99999", "web-02", "WEB-01"} {
			a.get("/v1/services/django/ports/"+holder).problem(404, "PORT_NOT_FOUND")
			a.delete("/v1/services/django/ports/"+holder).problem(404, "PORT_NOT_FOUND")
		}
		for _, holder := range []string{"-", "web-", "5000%20", "w%20b-01", "web*01", "wéb"} {
			a.get("/v1/services/django/ports/" + holder).invalid("port")
			a.delete("/v1/services/django/ports/" + holder).invalid("port")
		}
		a.get("/v1/services/-/ports/-").invalid("service", "port")
	})
}

func TestRelease(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.delete("/v1/services/django/ports/5000").problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "5000-5009")
		for _, holder := range []string{"5000", "web-01"} {
			a.accept(a.offer("django", "web-01"))
			a.delete("/v1/services/django/ports/" + holder).want(204)
			a.get("/v1/services/django/ports/5000").problem(404, "PORT_NOT_FOUND")
			a.get("/v1/services/django/ports/web-01").problem(404, "PORT_NOT_FOUND")
			a.delete("/v1/services/django/ports/"+holder).problem(404, "PORT_NOT_FOUND")
			equal(t, "ports", read[service](a.get("/v1/services/django")).Ports, ports{Total: 10, Free: 10})
		}
		a.do("DELETE", "/v1/services/django/ports/5000", `{"force":true}`).invalid("force")
	})
}

// If-Match keeps a late holder from releasing the next one's port.
func TestReleaseIfMatch(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5000")
		a.accept(a.offer("django", "web-01"))
		const port = "/v1/services/django/ports/5000"
		old := a.get(port).header.Get("ETag")
		a.delete(port, "If-Match", old).want(204)

		a.accept(a.offer("django", "web-02"))
		now := a.get(port).header.Get("ETag")
		if now == old {
			t.Fatalf("two holders of one port have the ETag %s", now)
		}
		for _, tags := range []string{old, `"0"`, old + `, "0"`} {
			a.delete(port, "If-Match", tags).problem(412, "PRECONDITION_FAILED")
		}
		for _, tags := range []string{"1", `"`, `""`, `"one"`, `W/"1"`, `"1" "2"`, `"1",`, `"99999999999999999999"`,
			`"` + now + `"`, `"+1"`, `"-1"`, `"01"`, `"00"`, `"1.0"`, `" 1"`, `*, ` + now, now + `, *`, `*,*`, `,` + now, `,`, `"*"`} {
			a.delete(port, "If-Match", tags).invalid("If-Match")
		}
		// An empty line says nothing that could match, and several lines are one list.
		for _, lines := range []string{
			"If-Match:\r\n", "If-Match: \r\n", "If-Match:\r\nIf-Match: " + now + "\r\n", "If-Match: " + now + "\r\nIf-Match:\r\n",
			"If-Match: *\r\nIf-Match: \"9999\"\r\n", "If-Match: \"9999\"\r\nif-match: *\r\n", "If-Match: *\r\nIf-Match: *\r\n",
		} {
			a.raw("DELETE " + port + " HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n").invalid("If-Match")
		}
		lines := "If-Match: " + old + "\r\nIf-Match: \"0\"\r\n"
		a.raw("DELETE "+port+" HTTP/1.1\r\nHost: a\r\n"+lines+"\r\n").problem(412, "PRECONDITION_FAILED")
		equal(t, "holder", read[allocation](a.get(port)).Name, "web-02")
		lines += "If-Match: \"7\" \t,\t" + now + "\r\n"
		a.raw("DELETE " + port + " HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n").want(204)

		a.accept(a.offer("django", "web-02"))
		now = a.get(port).header.Get("ETag")
		a.delete(port, "If-Match", old+`, `+now).want(204)

		a.accept(a.offer("django", "web-03"))
		a.delete(port, "If-Match", "*").want(204)
		// Where nobody holds it there is nothing to match.
		a.delete(port, "If-Match", old).problem(404, "PORT_NOT_FOUND")
	})
}

// The fence grows with every allocation of the pool.
func TestFenceGrows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5009")
		a.define("flask", "6000-6009")
		last := int64(0)
		for i := range 6 {
			held := a.accept(a.offer([]string{"django", "flask"}[i%2], fmt.Sprint("web-", i)))
			if held.Fence <= last {
				t.Errorf("fence %d after %d", held.Fence, last)
			}
			last = held.Fence
		}
	})
}

func TestListAllocations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.get("/v1/services/django/ports").problem(404, "SERVICE_NOT_FOUND")
		a.define("django", "9998-10999")
		equal(t, "no ports", a.get("/v1/services/django/ports").want(200).body, "[]")
		var held []string
		for i := range 7 {
			o := a.offer("django", fmt.Sprint("web-", i))
			if i != 3 {
				a.accept(o)
				held = append(held, o.Name)
			}
		}
		a.delete("/v1/services/django/ports/web-5").want(204)
		held = append(held[:4], held[5:]...)
		for limit := 1; limit < 7; limit++ {
			equal(t, fmt.Sprint("pages of ", limit), names(pages[allocation](a, "/v1/services/django/ports", limit)), strings.Join(held, " "))
		}
	})
}

func (a allocation) name() string { return a.Name }

// Lists longer than what one command to Redis looks at lose nothing between two of them.
func TestLongLists(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5999")
		var held []string
		for i := range 265 {
			o := a.offer("django", fmt.Sprint("web-", i))
			if i < 2 || i > 247 {
				a.accept(o)
				held = append(held, o.Name)
			}
		}
		equal(t, "pages of 4", names(pages[allocation](a, "/v1/services/django/ports", 4)), strings.Join(held, " "))
		equal(t, "offers", len(pages[offer](a, "/v1/services/django/offers", 100)), 265-len(held))
		equal(t, "offers at once", len(read[[]offer](a.get("/v1/services/django/offers"))), 265-len(held))
	})
}
