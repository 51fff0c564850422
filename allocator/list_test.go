package allocator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

// Pages join to the whole list, which crosses what one command reads.
func TestListsInPages(t *testing.T) {
	const ports = portsPerCommand + 20
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		mustDefine(t, a, "web", 2000, 2999)
		var offered, allocated []string
		for i := range ports {
			offer := mustOffer(t, a, "web", fmt.Sprintf("n%d", i))
			if i%3 == 0 {
				mustAccept(t, a, offer)
				allocated = append(allocated, fmt.Sprint(offer.Port, offer.Name))
			} else {
				offered = append(offered, fmt.Sprint(offer.Port, offer.Name))
			}
		}
		for _, limit := range []int{1, 7, len(offered), MaxPage} {
			got := pages(t, limit, func(cursor string) (items []string, next string, err error) {
				offers, next, err := a.Offers(t.Context(), DefaultPool, "web", Filter{}, cursor, limit)
				for _, o := range offers {
					if o.Secret != "" {
						t.Error("a list shows a secret")
					}
					items = append(items, fmt.Sprint(o.Port, o.Name))
				}
				return items, next, err
			})
			if want := strings.Join(offered, ","); got != want {
				t.Errorf("offers, %d a page: %s, want %s", limit, got, want)
			}
			got = pages(t, limit, func(cursor string) (items []string, next string, err error) {
				allocations, next, err := a.Allocations(t.Context(), DefaultPool, "web", Filter{}, cursor, limit)
				for _, o := range allocations {
					items = append(items, fmt.Sprint(o.Port, o.Name))
				}
				return items, next, err
			})
			if want := strings.Join(allocated, ","); got != want {
				t.Errorf("allocations, %d a page: %s, want %s", limit, got, want)
			}
		}
	})
}

func TestServicesAndPoolsInPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		a := newAllocator(store, long)
		for i, name := range []string{"d", "b", "c", "a"} {
			for _, pool := range []string{"two", "one", "three"} {
				_, err := a.Create(t.Context(), Caller{}, pool, Definition{Name: name, Start: 3000 - 10*i, End: 3005 - 10*i})
				must(t, err)
			}
		}
		for limit := 1; limit <= 5; limit++ {
			services := pages(t, limit, func(cursor string) (items []string, next string, err error) {
				services, next, err := a.Services(t.Context(), "one", cursor, limit)
				for _, s := range services {
					items = append(items, s.Name)
				}
				return items, next, err
			})
			pools := pages(t, limit, func(cursor string) (items []string, next string, err error) {
				pools, next, err := a.Pools(t.Context(), nil, cursor, limit)
				for _, p := range pools {
					items = append(items, fmt.Sprint(p.Name, p.Services))
				}
				return items, next, err
			})
			if services != "a,c,b,d" || pools != "one4,three4,two4" {
				t.Errorf("%d a page: services %s, pools %s", limit, services, pools)
			}
		}
		var all []string
		figures, unread, err := a.AllFigures(t.Context())
		must(t, err)
		for _, f := range figures {
			all = append(all, f.Pool+"/"+f.Service)
		}
		slices.Sort(all)
		if got := strings.Join(all, " "); got != "one/a one/b one/c one/d three/a three/b three/c three/d two/a two/b two/c two/d" || unread != 0 {
			t.Errorf("figures of %s; %d pools are unread", got, unread)
		}
	})
}

func TestListsRefuseWhatTheyDidNotGive(t *testing.T) {
	a := newAllocator(storetest.Mini(t), long)
	mustDefine(t, a, "web", 2000, 2009)
	for _, page := range []struct {
		cursor string
		limit  int
	}{{"", 0}, {"", MaxPage + 1}, {"", -1}, {"x", 1}, {"-1", 1}} {
		_, _, err := a.Offers(t.Context(), DefaultPool, "web", Filter{}, page.cursor, page.limit)
		wantError(t, fmt.Sprintf("offers %+v", page), err, ErrInvalid)
		_, _, err = a.Services(t.Context(), DefaultPool, page.cursor, page.limit)
		wantError(t, fmt.Sprintf("services %+v", page), err, ErrInvalid)
	}
	_, _, err := a.Allocations(t.Context(), DefaultPool, "none", Filter{}, "", 1)
	wantError(t, "no such service", err, ErrServiceNotFound)
}

// pages follows the cursors of a list to its end.
func pages(t *testing.T, limit int, page func(cursor string) (items []string, next string, err error)) string {
	t.Helper()
	var all []string
	for cursor, more := "", true; more; more = cursor != "" {
		items, next, err := page(cursor)
		must(t, err)
		if len(items) > limit || next != "" && len(items) < limit {
			t.Errorf("a page of %d has %d items, and the next is %q", limit, len(items), next)
		}
		all, cursor = append(all, items...), next
	}
	return strings.Join(all, ",")
}
