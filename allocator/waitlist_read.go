package allocator

import (
	"context"
	"strconv"
	"strings"
	"time"

	"portmaster/lua"
)

// WaitingCall is a call on the waitlist of a service.
type WaitingCall struct {
	Service  string
	Name     string    // that it asks for a port under; of a list of requests the first; "" if its server is of before names were known
	Requests int       // how many it has
	Ports    int       // how many ports it waits for; of a single request, consecutive ones
	Since    time.Time // when it joined, by Redis's clock; zero if its server is of before that was known
}

// minTime is less than any time in Unix milliseconds, and more than any position that is none.
const minTime = 1e12

// WaitingCalls lists the calls that wait for a port of a service, in their order: at most limit of them, from cursor ("" for the front).
// next is the cursor of the rest, "" if there is none; a page may be shorter than limit, or empty, and have one. Calls whose server is
// gone are left out, as is what is no ticket. It returns ErrInvalid or ErrServiceNotFound.
func (a *Allocator) WaitingCalls(ctx context.Context, pool, service, cursor string, limit int) (calls []WaitingCall, next string, err error) {
	f := checkService(pool, service)
	after := f.cursor(cursor)
	f.limit(limit)
	if err := f.err(); err != nil {
		return nil, "", err
	}
	answer, err := a.read(ctx, a.keys.Pool(pool).Call(lua.ReadWaitlist, service, "", service, after, limit))
	if err != nil {
		return nil, "", a.notGone(ctx, pool, err)
	}
	parts, _ := answer.([]any)
	if len(parts) < 2 || len(parts)%2 != 0 {
		return nil, "", malformed("the waitlist of", service)
	}
	now, errNow := toInt(parts[0])
	next, isText := parts[1].(string)
	tickets, ok := scored(parts[2:], 0)
	if errNow != nil || !isText || !ok {
		return nil, "", malformed("the waitlist of", service)
	}
	for _, t := range tickets {
		call, isTicket := callOfTicket(t.text)
		if !isTicket {
			continue
		}
		call.Service = service
		if t.score >= minTime { // it is a little later if many came at once, or the clock stepped back
			call.Since = time.UnixMilli(min(t.score, now)).UTC()
		}
		calls = append(calls, call)
	}
	return calls, next, nil
}

// ticketOf writes a ticket: SERVER-NUMBER/NAME/PORTS/ROWS. It says who the call is, the name of its first request, how many ports it
// waits for, and how many of them in a row.
func ticketOf(server string, number int, requests []Request) string {
	ports := 0
	for _, r := range requests {
		ports += r.count()
	}
	return server + "-" + strconv.Itoa(number) + "/" + requests[0].Name + "/" + strconv.Itoa(ports) + "/" + rowsOf(requests)
}

// callOfTicket reads a ticket. Those of servers of before names were known have none. ok is false if it is none.
func callOfTicket(ticket string) (call WaitingCall, ok bool) {
	parts := strings.Split(ticket, "/")
	n := len(parts)
	if n < 3 {
		return call, false
	}
	call.Ports = portsOf(ticket)
	call.Name = strings.Join(parts[1:n-2], "/")
	call.Requests = call.Ports
	for row := range strings.SplitSeq(parts[n-1], ".") { // each is of one request, but 1 is of all that are for a single port
		row, _, _ = strings.Cut(row, "x") // of what the first port is a multiple
		if length, _ := strconv.Atoi(row); length > 1 {
			call.Requests -= length - 1
		}
	}
	return call, true
}
