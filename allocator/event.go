package allocator

import (
	"cmp"
	"math"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/executor"
)

// EventKind is what happened.
type EventKind string

// The kinds of events. The first eight are in the history of a service; the last two are what only a Listener is told.
const (
	EventAllocated EventKind = "allocated" // an offer was accepted, or a port claimed
	EventRenewed   EventKind = "renewed"   // by an operator, what another owner has
	EventReleased  EventKind = "released"
	EventInUse     EventKind = "in_use"  // an offer was rejected, or an allocation released, since something else uses its port
	EventExpired   EventKind = "expired" // a lease was found to have ended, at Until
	EventDefined   EventKind = "defined" // the service was
	EventChanged   EventKind = "changed" // the service was
	EventRemoved   EventKind = "removed" // the service was

	EventReady EventKind = "ready" // what comes now happened after ID
	EventReset EventKind = "reset" // some events may be missing: read the state anew. What comes now happened after ID
)

// Event is an entry of the history of a service. Fields that its kind does not have are zero.
type Event struct {
	ID        string    // grows in a service: ms-n, of which ms is Time
	Time      time.Time // Redis's, in UTC
	Kind      EventKind
	Service   string
	Name      string
	Port      int // the first
	Count     int // of consecutive ports; 0 if the event is about no port
	Fence     int64
	Owner     string
	RequestID string    // of the HTTP request that caused it
	Until     time.Time // when the lease ends, as far as was known then, or ended; zero if there is none
	Expired   time.Time // of an allocation that nothing has ended: when its lease ran out
	Start     int       // the first port of a service
	End       int       // the last
	Ranges    []Range   // if the service has several

	id   eventID
	Tied bool // the next event that a Listener gets has the same ID, in another service
}

// eventID is the id of an entry of a STREAM.
type eventID struct{ ms, n uint64 }

// lastOf is the highest id of a millisecond.
func lastOf(ms uint64) eventID { return eventID{ms, math.MaxUint64} }

// parseEventID reads ms-n, written in the one way in which Redis writes it.
func parseEventID(text string) (id eventID, ok bool) {
	ms, n, _ := strings.Cut(text, "-")
	var err1, err2 error
	id.ms, err1 = strconv.ParseUint(ms, 10, 64)
	id.n, err2 = strconv.ParseUint(n, 10, 64)
	return id, err1 == nil && err2 == nil && id.String() == text
}

func (id eventID) String() string {
	return strconv.FormatUint(id.ms, 10) + "-" + strconv.FormatUint(id.n, 10)
}

func (id eventID) compare(other eventID) int {
	return cmp.Or(cmp.Compare(id.ms, other.ms), cmp.Compare(id.n, other.n))
}

// isEntry reports whether there may be an entry of that id: else it only says where one reads on.
func (id eventID) isEntry() bool { return id != eventID{} && id.n != math.MaxUint64 }

func (id eventID) after(other eventID) bool { return id.compare(other) > 0 }

// before returns the next lower id; that of 0-0 is 0-0.
func (id eventID) before() eventID {
	switch {
	case id.n > 0:
		return eventID{id.ms, id.n - 1}
	case id.ms > 0:
		return lastOf(id.ms - 1)
	}
	return id
}

// at returns the event with another id.
func (e Event) at(id eventID) Event {
	e.id, e.ID = id, id.String()
	return e
}

// parseEvent reads an entry of a history.
func parseEvent(service string, entry executor.Entry) (Event, error) {
	text := func(field string) string {
		value, _ := entry.Values[field].(string)
		return value
	}
	malformedField := false
	number := func(field string) int64 {
		value := text(field)
		if value == "" {
			return 0
		}
		n, err := strconv.ParseInt(value, 10, 64)
		malformedField = malformedField || err != nil
		return n
	}
	id, ok := parseEventID(entry.ID)
	e := Event{
		ID: entry.ID, Time: time.UnixMilli(int64(id.ms)).UTC(), Kind: EventKind(text("event")), Service: service, Name: text("name"),
		Port: int(number("port")), Count: int(number("count")), Fence: number("fence"), Owner: text("owner"), RequestID: text("request"),
		Start: int(number("start")), End: int(number("end")), id: id,
	}
	if until := number("until"); until != 0 {
		e.Until = time.UnixMilli(until).UTC()
	}
	if e.Port != 0 && e.Count == 0 {
		e.Count = 1
	}
	if ranges := text("ranges"); ranges != "" {
		var areRanges bool
		e.Ranges, areRanges = parseRanges(ranges)
		malformedField = malformedField || !areRanges
	}
	if !ok || e.Kind == "" || malformedField {
		return Event{}, malformed("an event of", service)
	}
	return e, nil
}

// has reports whether the event is about a port.
func (e *Event) has(port int) bool { return e.Port <= port && port < e.Port+e.Count }
