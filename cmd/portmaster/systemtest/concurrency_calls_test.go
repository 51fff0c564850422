//go:build !faults

package systemtest

import (
	"fmt"
	"strings"
	"time"
)

// call makes a call to any of the servers and records what came of it: an event for each name that it was about. Of a
// call that was refused as a whole there is one event, about the name at fault, or about none.
func (c *fighter) call(q request, asked ...event) []event {
	call := time.Now().UnixNano()
	answer := c.send(c.t.Context(), c.random.IntN(len(c.servers)), q)
	ret := time.Now().UnixNano()
	if answer.status == 0 || answer.status >= 500 {
		c.t.Errorf("%s %s: %s %s", q.method, q.path, answer.code, answer.detail)
	}
	got := told(asked, answer, strings.HasPrefix(q.body, "["))
	for i := range got {
		got[i].client, got[i].call, got[i].ret = c.id, call, ret
		for _, why := range []string{got[i].wrongEnd(), got[i].wrongAnswer()} {
			if why != "" || c.maxLease != 0 && got[i].fence != 0 && got[i].expires == 0 {
				c.t.Errorf("%s: %+v", why, got[i])
			}
		}
	}
	c.history = append(c.history, got...)
	c.made.Add(1)
	return got
}

// told is what an answer says about that which was asked.
func told(asked []event, answer reply, many bool) []event {
	switch {
	case !many:
		return []event{asked[0].answered(answer.code, answer.held)}
	case len(answer.list) == len(asked):
		got := make([]event, len(asked))
		for i, held := range answer.list {
			got[i] = asked[i].answered(answer.code, held)
		}
		return got
	}
	for i, e := range asked {
		if len(answer.at) > 0 && strings.HasPrefix(answer.at[0], fmt.Sprintf("[%d].", i)) {
			return []event{e.answered(answer.code, held{})}
		}
	}
	return []event{{act: asked[0].act, how: asked[0].how, inLine: asked[0].inLine, code: answer.code}}
}

// answered is the event with what it came to.
func (e event) answered(code string, held held) event {
	e.code = code
	if held.Port == 0 {
		return e
	}
	e.name, e.port, e.count, e.fence, e.has = held.Name, held.Port, held.Count, held.Fence, held.Labels.Job
	if held.Secret != "" {
		e.secret = held.Secret
	} else if e.act == "claim" { // beside new ones, or alone
		e.act, e.code = "existing", "200"
	}
	if held.Fence != 0 && !held.Expires.IsZero() {
		e.expires = held.Expires.UnixMilli()
	}
	return e
}

// wrongAnswer says what is wrong with what a call got. What exists already may be anything.
func (e event) wrongAnswer() string {
	switch {
	case !succeeded(e) || e.act == "existing":
		return ""
	case e.has != e.job:
		return fmt.Sprintf("its label is %q", e.has)
	case e.align > 0 && e.port%e.align != 0:
		return "it is no multiple"
	case e.impossible && (e.code == "201" || e.act == "renew"): // an acceptance that is repeated may say anything
		return "it is too much"
	}
	return ""
}

// wrongEnd says what is wrong with the end of a lease: it must lie as far from the call as was asked for.
func (e event) wrongEnd() string {
	begins := e.code == "201" && (e.act == "claim" && !strings.HasPrefix(e.how, "of many") || e.act == "accept") || e.code == "200" && e.act == "renew"
	if !begins || e.lease == 0 {
		return ""
	}
	if from := e.expires - e.lease; from < e.call/1e6 || from > e.ret/1e6 {
		return fmt.Sprintf("a lease ends at %d, which is not %d ms after a time within %d-%d", e.expires, e.lease, e.call/1e6, e.ret/1e6)
	}
	return ""
}
