//go:build faults

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// state is what a service holds.
type state struct {
	ports       portCounts
	allocations []listing
	offers      []listing
}

type portCounts struct{ Total, Free, Offered, Allocated int }

// listing is an allocation, or an open offer, which has no fence.
type listing struct {
	Name  string
	Port  int
	Fence int64
}

// define makes a service, and waits until it can.
func define(t testing.TB, server string, of service, start, end int) {
	t.Helper()
	body := fmt.Sprintf(`{"start":%d,"end":%d}`, start, end)
	eventually(t, of.path()+" is defined", func() bool {
		request, err := http.NewRequest("PUT", server+of.path(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := visitor().Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusCreated || response.StatusCode == http.StatusOK
	})
}

// readStates reads what services hold, once no client calls any more.
func readStates(t testing.TB, server string, services ...service) map[service]state {
	t.Helper()
	states := map[service]state{}
	for _, of := range services {
		eventually(t, of.path()+" is read while no offer expires", func() bool {
			before, ok := readCounts(server, of)
			read := state{ports: before}
			ok = ok && readList(server, of.path()+"/ports", &read.allocations) && readList(server, of.path()+"/offers", &read.offers)
			after, again := readCounts(server, of)
			states[of] = read
			return ok && again && before == after
		})
	}
	return states
}

// giveBack rejects what is on offer and releases what is allocated, and finds ports that are not free after that.
func giveBack(t testing.TB, server string, l *ledger, states map[service]state) (found findings) {
	t.Helper()
	secrets := map[owner]string{}
	for _, c := range l.all() {
		secrets[owner{c.service, c.name}] = c.secret
	}
	for of, held := range states {
		for _, o := range held.offers {
			finish(t, call{kind: reject, service: of, server: server, name: o.Name, secret: secrets[owner{of, o.Name}]})
		}
		for _, a := range held.allocations {
			finish(t, call{kind: release, service: of, server: server, name: a.Name, port: a.Port, fence: a.Fence})
		}
		if left := readStates(t, server, of)[of]; left.ports.Free != left.ports.Total {
			found = append(found, finding{leak, fmt.Sprintf("after all was given back %s has %+v", of.path(), left)})
		}
	}
	return found
}

// finish makes a call until it is answered for good.
func finish(t testing.TB, c call) {
	t.Helper()
	eventually(t, c.String(), func() bool {
		answered := send(visitor(), c)
		return answered.acknowledged() || answered.refused()
	})
}

func readCounts(server string, of service) (portCounts, bool) {
	var service struct{ Ports portCounts }
	_, ok := get(server+of.path(), &service)
	return service.Ports, ok
}

var nextPage = regexp.MustCompile(`<([^>]+)>; rel="next"`)

// readList reads all pages of a list. It is false where one is not to be had.
func readList(server, path string, all *[]listing) bool {
	for {
		var page []listing
		link, ok := get(server+path, &page)
		if !ok {
			return false
		}
		*all = append(*all, page...)
		next := nextPage.FindStringSubmatch(link)
		if next == nil {
			return true
		}
		path = next[1]
	}
}

// get reads an answer into target. link is its header.
func get(address string, target any) (link string, ok bool) {
	response, err := visitor().Get(address)
	if err != nil {
		return "", false
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(target) != nil {
		return "", false
	}
	return response.Header.Get("Link"), true
}
