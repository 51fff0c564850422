package allocator

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
