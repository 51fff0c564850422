package exec

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	"portmaster/client"
)

func TestNameIsReadableAndValid(t *testing.T) {
	long := strings.Repeat("long-", 30)
	for want, id := range map[string]identity{
		"laptop.ann.shop.4711":       {"laptop", "ann", "/home/ann/shop"},
		"laptop.AD-ann.My-Shop.4711": {"laptop", `AD\ann`, "/home/ann/My Shop"},
		"ann.shop.4711":              {"", "ann", "/home/ann/shop"},
		"laptop.ann.4711":            {"laptop", "ann", "/"},
		"exec.4711":                  {"", "", ""},
		"laptop.J-rg.caf.4711":       {"laptop", "Jörg", "/home/Jörg/.café"},
		"ng-long-long-long-long-long-long-long.ann.s.4711": {long, "ann", "/s"},
	} {
		got := id.name(4711, 48)
		if got != want {
			t.Errorf("%+v is %s, want %s", id, got, want)
		}
	}
	valid := regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)
	parts := []string{"", ".", "..", "-_-", "1", "ß", long, "a" + strings.Repeat(".", 70) + "b", strings.Repeat("é", 70)}
	for _, host := range parts {
		for _, user := range parts {
			for _, directory := range parts {
				for _, max := range []int{20, maxName} {
					got := identity{host, user, "/" + directory}.name(4194304, max)
					if !valid.MatchString(got) || strings.Trim(got, "0123456789") == "" || len(got) > max || !strings.HasSuffix(got, ".4194304") {
						t.Errorf("%q %q %q is %q", host, user, directory, got)
					}
				}
			}
		}
	}
}

func TestPreferredPortIsTheSameEachTime(t *testing.T) {
	s := client.Service{Start: 5000, End: 5099}
	a, b := identity{"laptop", "ann", "/home/ann/a/shop"}, identity{"laptop", "ann", "/home/ann/b/shop"}
	if got := preferred(s, "", a, "WEB"); got != 5059 { // another version of the program must prefer it, too
		t.Errorf("it prefers %d", got)
	}
	if preferred(s, "web-01", a, "WEB") != preferred(s, "web-01", b, "WEB") {
		t.Error("the same name prefers another port in another directory")
	}
	seen := map[int]bool{}
	for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		port := preferred(s, name, a, "WEB")
		if seen[port] = true; port < s.Start || port > s.End {
			t.Errorf("it prefers %d", port)
		}
	}
	for _, other := range []int{preferred(s, "", a, "WEB"), preferred(s, "", b, "WEB"), preferred(s, "", a, "DB")} {
		seen[other] = true
	}
	if len(seen) < 20 {
		t.Errorf("29 execs prefer only %d ports", len(seen))
	}
	several := client.Service{Start: 7, End: 12, Ranges: []client.Range{{Start: 7, End: 7}, {Start: 10, End: 12}}}
	got := map[int]bool{}
	for i := range 100 {
		got[preferred(several, fmt.Sprint(i), a, "")] = true
	}
	if !maps.Equal(got, map[int]bool{7: true, 10: true, 11: true, 12: true}) {
		t.Errorf("of several ranges the ports %v are preferred", got)
	}
	if got := preferred(client.Service{Start: 7, End: 7}, "x", a, ""); got != 7 {
		t.Errorf("of one port it prefers %d", got)
	}
}
