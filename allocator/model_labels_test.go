package allocator

import (
	"fmt"

	"pgregory.net/rapid"
)

// The labels of the model's holds.

// labelled takes the labels of a record out of those that are left, and puts them behind it. It leaves a record that should have some
// and has none as it is, which is no record of the model's.
func (s *stored) labelled(port string, r record) record {
	if !r.hasLabels() {
		return r
	}
	labels := r.labelsIn(s.labels[port])
	delete(s.labels, port)
	return r + record(labels)
}

// manyLabels are as many as an allocation may have, none of which is in job or other.
var manyLabels = func() Labels {
	of := map[string]string{}
	for i := range MaxLabels {
		of[fmt.Sprint("many", i)] = ""
	}
	return NewLabels(of)
}()

// label draws a change of labels.
func (r *run) label(t *rapid.T) {
	c, right, _ := r.holder(t, "label")
	c.secret, c.caller = r.proof(t, right), drawCaller(t)
	c.labels = rapid.SampledFrom([]Labels{"", job, other, manyLabels}).Draw(t, "labels")
	if c.labels == "" || rapid.Bool().Draw(t, "some go") && c.labels != manyLabels {
		for _, key := range []string{"job", "many0", "never"} {
			if _, isSet := c.labels.Map()[key]; !isSet {
				c.gone = append(c.gone, key)
			}
		}
	}
	r.step(t, c)
}

// labelChanges are the changes as a caller gives them.
func (c request) labelChanges() map[string]*string {
	changes := map[string]*string{}
	for key, value := range c.labels.Map() {
		changes[key] = &value
	}
	for _, key := range c.gone {
		changes[key] = nil
	}
	return changes
}

func (m *model) label(s *modelService, c request) answer {
	h := m.find(s, c.holder)
	if refused := m.mayNotChange(h, c); refused != nil {
		return *refused
	}
	of := h.labels.Map()
	if of == nil {
		of = map[string]string{}
	}
	for key, value := range c.labelChanges() {
		if delete(of, key); value != nil {
			of[key] = *value
		}
	}
	if len(of) > MaxLabels {
		return answer{Code: CodeInvalid, Fields: []string{"labels"}}
	}
	h.labels = NewLabels(of)
	return answer{Allocations: []Allocation{h.allocation(c.service)}}
}
