package handlers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// Who waits is listed in the order in which they are served, with names that look like other parts of a ticket, until they leave. A call
// of a server that is gone is not listed, and one of an older server has no name.
func TestWaitingCalls(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.define("django", "5000-5003")
		a.claim("django", `{"name":"all","count":4}`)
		const path = "/v1/services/django/waiting"
		type waiting struct {
			Service, Name   string
			Ports, Requests int
			Since           time.Time
		}
		list := func(query string) (calls []waiting, text string) {
			calls = read[[]waiting](a.get(path + query))
			var parts []string
			for _, w := range calls {
				parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %d/%d", w.Name, w.Ports, w.Requests)))
			}
			return calls, strings.Join(parts, ", ")
		}
		command := func(args ...any) {
			if err := store.Admin.Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "nobody", a.get(path).body, "[]")
		began := time.Now().Add(-time.Second)
		var calls []*call
		for i, body := range []string{
			`{"name":"web-1.0"}`, `{"name":"b","count":3}`,
			`[{"name":"c","count":2},{"name":"d"},{"name":"e"}]`, `[{"name":"f","count":2},{"name":"g","count":2}]`,
		} {
			calls = append(calls, a.start("POST", "/v1/services/django/ports?wait=60s", body))
			soon(t, "it waits", func() bool { return a.service("django").Waiting == i+1 })
		}
		all, text := list("")
		equal(t, "those that wait", text, "web-1.0 1/0, b 3/0, c 4/3, f 4/2")
		for i, w := range all {
			if w.Service != "django" || w.Since.Before(began) || w.Since.After(time.Now().Add(time.Second)) || i > 0 && w.Since.Before(all[i-1].Since) {
				t.Errorf("%+v, after %s", w, began)
			}
		}
		page := a.get(path + "?limit=3")
		equal(t, "a page", len(read[[]waiting](page)), 3)
		next, _, _ := strings.Cut(strings.TrimPrefix(page.header.Get("Link"), "<"), ">")
		whole := a.get(path).body
		equal(t, "the next page", a.get(next).body, "["+whole[strings.Index(whole, `{"pool":"default","service":"django","name":"f"`):])

		key := store.Prefix + ":{default}:line:django"
		command("ZADD", key, 1, "0123456789abcdef-7/1/1")
		_, text = list("")
		equal(t, "beside one of a server that is gone", text, "web-1.0 1/0, b 3/0, c 4/3, f 4/2")
		command("ZADD", store.Prefix+":{default}:beats", time.Now().Add(1400*time.Millisecond).UnixMilli(), "0123456789abcdef")
		older, text := list("")
		if text != "1/0, web-1.0 1/0, b 3/0, c 4/3, f 4/2" || !older[0].Since.IsZero() {
			t.Errorf("beside one of an older server: %s, since %s", text, older[0].Since)
		}
		command("ZADD", store.Prefix+":{default}:beats", time.Now().Add(time.Minute).UnixMilli(), "0123456789abcdef")
		_, text = list("")
		equal(t, "beside one whose heartbeat is from before the clock stepped back", text, "web-1.0 1/0, b 3/0, c 4/3, f 4/2")
		command("ZREM", key, "0123456789abcdef-7/1/1")
		for _, broken := range []string{"0123456789abcdef", "0123456789abcdef-8/1", "-9/x/1/1", ""} { // left by hand: no tickets
			command("ZADD", key, 2, broken)
		}
		_, text = list("")
		equal(t, "beside what is no ticket", text, "web-1.0 1/0, b 3/0, c 4/3, f 4/2")
		command("ZREM", key, "0123456789abcdef", "0123456789abcdef-8/1", "-9/x/1/1", "")

		calls[1].hangUp()
		soon(t, "it has left", func() bool { _, text = list(""); return text == "web-1.0 1/0, c 4/3, f 4/2" })
		a.delete("/v1/services/django/ports/all").want(204)
		calls[0].answer().want(201)
		soon(t, "it has its port", func() bool { _, text = list(""); return text == "c 4/3, f 4/2" })
		for _, query := range []string{"limit=0", "limit=1001"} {
			a.get(path + "?" + query).invalid("limit")
		}
		a.get(path + "?cursor=x").invalid("cursor")
		a.get("/v1/services/none/waiting").problem(404, "SERVICE_NOT_FOUND")
		calls[2].hangUp()
		calls[3].hangUp()
		soon(t, "all have left", func() bool { return a.get(path).body == "[]" })
	})
}
