package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"strconv"
	"time"
)

// EventKind says what happened. A newer server may have other kinds than these.
type EventKind string

// The kinds of what happened to a service and its ports.
const (
	EventAllocated EventKind = "allocated" // an offer was accepted, or a port claimed
	EventRenewed   EventKind = "renewed"   // an operator renewed the lease of another owner; other renewals are not told
	EventReleased  EventKind = "released"
	EventInUse     EventKind = "in_use"  // an offer was rejected, or an allocation released, because something else uses the port
	EventExpired   EventKind = "expired" // the lease ended at Until; told when the port or the name is needed again
	EventDefined   EventKind = "defined" // the service was defined
	EventChanged   EventKind = "changed" // the service has another range, description or cooldown
	EventRemoved   EventKind = "removed" // the service was removed
)

// The kinds of what happened to a stream of Events. Such an event has only an ID.
const (
	EventReady EventKind = "ready" // the stream is connected, for the first time or again: later events will come
	EventReset EventKind = "reset" // events before this one are lost to the stream: read the state anew
)

// Event is one thing that happened to a service.
type Event struct {
	ID        string    `json:"id"` // of a stream: where it can be resumed
	Time      time.Time `json:"time,omitzero"`
	Kind      EventKind `json:"event"`
	Pool      string    `json:"pool,omitempty"` // "" from a server that does not tell yet
	Service   string    `json:"service,omitempty"`
	Name      string    `json:"name,omitempty"`
	Port      int       `json:"port,omitempty"`       // the first; 0: it is about the service
	Count     int       `json:"count,omitempty"`      // of consecutive ports; 1 or more if there is a Port
	Fence     int64     `json:"fence,omitempty"`      // of the allocation
	Owner     string    `json:"owner,omitempty"`      // of the allocation; "": nobody's in particular
	RequestID string    `json:"request_id,omitempty"` // of the call that did it, if it had sent one or the audit has it
	Until     time.Time `json:"until,omitzero"`       // when the lease ends or ended, as it was known then; zero: there is none
	Expired   time.Time `json:"expired,omitzero"`     // of an allocation in a history: when its lease ended; zero: it did not
	Start     int       `json:"start,omitempty"`      // first port of a service that was defined or changed
	End       int       `json:"end,omitempty"`        // its last port
	Ranges    []Range   `json:"ranges,omitempty"`     // if it has several
}

// MarshalJSON returns the event as the API has it.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	e.Count = omitOne(e.Count)
	return json.Marshal(plain(e))
}

// UnmarshalJSON reads an event as the API has it.
func (e *Event) UnmarshalJSON(text []byte) error {
	type plain Event
	err := json.Unmarshal(text, (*plain)(e))
	if e.Port > 0 {
		e.Count = max(e.Count, 1)
	}
	return err
}

// HistoryFilter says which part of a history is of interest. The zero value is all of it.
type HistoryFilter struct {
	Port  int       // any port of a block; 0: all
	Name  string    // "": all
	Owner string    // "": all
	Since time.Time // not before; zero: from the beginning
	Until time.Time // before; zero: to the end

	// At, unless it is zero, selects the allocations that were held at that time, instead of what happened. It needs Port or Name.
	At time.Time
}

func (f HistoryFilter) query() url.Values {
	q := url.Values{}
	for name, text := range map[string]string{"name": f.Name, "owner": f.Owner} {
		if text != "" {
			q.Set(name, text)
		}
	}
	for name, t := range map[string]time.Time{"since": f.Since, "until": f.Until, "at": f.At} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if f.Port != 0 {
		q.Set("port", strconv.Itoa(f.Port))
	}
	return q
}

// History lists what happened to a service and its ports, the latest first, as far back as the server remembers. An error is the last
// item; it is ErrServiceNotFound if there is neither a service of that name nor a history.
func (c *Client) History(ctx context.Context, service string, f HistoryFilter) iter.Seq2[Event, error] {
	path, err := c.path("services", service, "history")
	return list[Event](ctx, c, path, f.query(), err)
}
