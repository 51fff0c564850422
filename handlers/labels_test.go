package handlers

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

// Labels are in the answers to all calls about an offer and its allocation, as they were given.
func TestLabels(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.post("/v1/services", `{"name":"django","start":5000,"end":5099}`).want(201)
		const path, labels = "/v1/services/django", `"labels":{"job":"4711","text":"\"é\\"}`
		has := func(r answer) answer {
			t.Helper()
			if !strings.Contains(r.body, labels) {
				t.Errorf("no labels: %s", r)
			}
			return r
		}
		has(a.post(path+"/offers", `{"name":"ann","secret":"6f8ffc86-d98a-49ba-848a-a7cbaaea9360","labels":{"text":"\"\u00e9\\","job":"4711"}}`).want(201))
		has(a.get(path + "/offers").want(200))
		has(a.get(path + "/offers/6f8ffc86-d98a-49ba-848a-a7cbaaea9360").want(200))
		has(a.post(path+"/offers/6f8ffc86-d98a-49ba-848a-a7cbaaea9360/accept", "").want(201))
		has(a.get(path + "/ports/ann").want(200))
		has(a.get(path + "/ports").want(200))
		has(a.post(path+"/ports/ann/renew", `{"secret":"6f8ffc86-d98a-49ba-848a-a7cbaaea9360","lease":60}`).want(200))
		has(a.post(path+"/ports", `[{"name":"ben"},{"name":"cat",`+labels+`}]`).want(201))
		if got := a.get(path + "/ports/ben").want(200).body; strings.Contains(got, "labels") {
			t.Errorf("one without labels is %s", got)
		}
		for body, field := range map[string]string{
			`{"name":"x","labels":{"a":1}}`: "labels", `{"name":"x","labels":[]}`: "labels", `{"name":"x","labels":{"A":"1"}}`: "labels",
			`{"name":"x","labels":{"a":"\u0000"}}`: "labels", `{"name":"x","labels":{"a":null}}`: "labels", `{"name":"x","labels":{"a":"1","a":"2"}}`: "labels",
			`[{"name":"x","labels":{"a":{}}}]`: "[0].labels", `[{"name":"x"},{"name":"y","labels":{"":""}}]`: "[1].labels",
		} {
			got := a.post(path+"/ports", body).problem(400, "INVALID")
			if len(got.Errors) != 1 || got.Errors[0].Field != field {
				t.Errorf("%s: %v", body, got.Errors)
			}
		}
	})
}

// Each filter narrows a list, and so do several of them together; the next page has the same.
func TestFilters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.post("/v1/services", `{"name":"django","start":5000,"end":5099}`).want(201)
		const path = "/v1/services/django"
		for i := range 6 {
			for _, list := range []string{"ports", "offers"} {
				a.post(path+"/"+list, fmt.Sprintf(`{"name":"%s-%d","labels":{"job":"a=%d","even":"","n":"%d"}}`, list, i, i%2, i)).want(201)
			}
			a.post(path+"/ports", fmt.Sprintf(`{"name":"plain-%d","labels":{}}`, i)).want(201)
		}
		names := func(link string) (all string) {
			t.Helper()
			for link != "" {
				page := a.get(link).want(200)
				for _, item := range read[[]struct{ Name string }](page) {
					all += item.Name + " "
				}
				link, _, _ = strings.Cut(strings.TrimPrefix(page.header.Get("Link"), "<"), ">")
			}
			return strings.TrimSpace(all)
		}
		for query, want := range map[string]string{
			"label=" + url.QueryEscape("job=a=1"):                  "LIST-1 LIST-3 LIST-5",
			"label=" + url.QueryEscape("job=a=1") + "&name=LIST-3": "LIST-3",
			"label=" + url.QueryEscape("job=a=1") + "&name=LIST-2": "",
			"label=job":                       "",
			"label=job%3Da%3D2":               "",
			"label=none%3D":                   "",
			"label=even%3D&name_prefix=LIST-": "LIST-0 LIST-1 LIST-2 LIST-3 LIST-4 LIST-5",
			"label=n%3D2&owner=none":          "",
			"name=LIST-4":                     "LIST-4",
			"name=none":                       "",
			"name_prefix=LIST-5":              "LIST-5",
			"name_prefix=IST":                 "",
		} {
			for _, list := range []string{"ports", "offers"} {
				query, want := strings.ReplaceAll(query, "LIST", list), strings.ReplaceAll(want, "LIST", list)
				if query == "label=job" {
					a.get(path+"/"+list+"?"+query).problem(400, "INVALID")
					continue
				}
				for _, limit := range []string{"1", "2", "1000"} {
					if got := names(path + "/" + list + "?limit=" + limit + "&" + query); got != want {
						t.Errorf("%s?%s, %s a page: %s, want %s", list, query, limit, got, want)
					}
				}
			}
		}
		for _, wrong := range []string{"label=Job%3D1", "label=job%3D%00", "label==", "name=-", "name_prefix=-", "name_prefix=%2Fa", "name=a&name=b"} {
			a.get(path+"/ports?"+wrong).problem(400, "INVALID")
		}
		released := func(query string) string { return strings.TrimSpace(a.delete(path + "/ports?" + query).want(200).body) }
		equal(t, "released by label", released("label=job%3Da%3D1"), `{"released":3}`)
		equal(t, "released by prefix", released("name_prefix=plain-"), `{"released":6}`)
		equal(t, "released by label and name", released("label=job%3Da%3D0&name=ports-2"), `{"released":1}`)
		equal(t, "left", names(path+"/ports"), "ports-0 ports-4")
		a.delete(path+"/ports").problem(400, "INVALID")
		a.delete(path+"/ports?label=").problem(400, "INVALID")
	})
}

// PATCH sets labels and removes others; what is wrong names its field.
func TestChangeLabels(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAPI(t, store)
		a.post("/v1/services", `{"name":"django","start":5000,"end":5099}`).want(201)
		const path, secret = "/v1/services/django/ports/ann", `"secret":"2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f0"`
		a.post("/v1/services/django/ports", `{"name":"ann",`+secret+`,"labels":{"a":"1","b":"2"}}`).want(201)
		for range 2 {
			got := a.do("PATCH", path, `{`+secret+`,"labels":{"a":null,"c":"\u00e9"}}`).want(200)
			contains(t, got.body, `"labels":{"b":"2","c":"é"}`)
			equal(t, "the ETag", got.header.Get("ETag"), a.get(path).header.Get("ETag"))
		}
		for body, field := range map[string]string{
			`{` + secret + `}`: "labels", `{` + secret + `,"labels":null}`: "labels", `{` + secret + `,"labels":{}}`: "labels", `{"secret":null,"labels":{"a":null}}`: "secret",
			`{` + secret + `,"labels":{"A":null}}`: "labels", `{` + secret + `,"labels":{"a":1}}`: "labels", `{` + secret + `,"labels":{"a":"1"},"lease":1}`: "lease",
		} {
			got := a.do("PATCH", path, body).problem(400, "INVALID")
			if len(got.Errors) != 1 || got.Errors[0].Field != field {
				t.Errorf("%s: %v", body, got.Errors)
			}
		}
		a.do("PATCH", path, `{"secret":"2c1ec08c-d7b4-4c1f-8a8c-6b86e7a5a1f1","labels":{"a":"1"}}`).problem(403, "SECRET_MISMATCH")
		a.do("PATCH", "/v1/services/django/ports/5001", `{`+secret+`,"labels":{"a":"1"}}`).problem(404, "PORT_NOT_FOUND")
	})
}
