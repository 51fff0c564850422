package allocator

// Pick says which port a request gets that asks for none.
type Pick string

const (
	// PickRested picks the port that has been free the longest.
	PickRested Pick = ""
	// PickByName picks the port that a hash of the instance name leads to, if it is free, so that the same name mostly gets the same
	// port. The holder that had a port last, by its name and owner, may have it again while it cools down.
	PickByName Pick = "name"
)

func (f *faults) pick(pick Pick) {
	if pick != PickRested && pick != PickByName {
		f.add("pick", "must be name or rested")
	}
}
