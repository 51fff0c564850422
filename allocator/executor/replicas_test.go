package executor

import "testing"

// Of the batches that are under way when one misses what the replicas had, none is answered, since the first hides it from the others.
// Those that are under way when another state is taken for the right one prove nothing.
func TestTrail(t *testing.T) {
	told := 0
	trail := newTrail(func() { told++ })
	first := trail.next("key")
	if !trail.follows(first, "") {
		t.Error("there was none before the first")
	}
	trail.leave(first)
	second, third, fourth := trail.next("key"), trail.next("key"), trail.next("key")
	if !trail.follows(second, "1") || trail.follows(third, "0") || trail.follows(fourth, "3") || told != 1 {
		t.Errorf("what is missing was told %d times", told)
	}
	trail.leave(second) // it was waited for meanwhile
	fifth := trail.next("key")
	if !trail.follows(fifth, "") {
		t.Error("what was left in a state that is lost is expected of the next")
	}
	trail.leave(fifth)
	sixth := trail.next("key")
	(&Executor{trail: trail}).ForgetTrail()
	if trail.follows(sixth, "") || told != 1 {
		t.Errorf("after another state came it was told %d times", told)
	}
}
