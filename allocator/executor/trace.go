package executor

import "context"

// Trace watches the calls to Redis. It is called when one begins, with the name of its script or command, and what it returns when that
// one has ended: the time between is that in the queue, in Redis, and on the way. err is nil if Redis answered, also if it refused.
type Trace func(ctx context.Context, name string) (ended func(err error))

// failure returns the error of a call that Redis did not answer.
func failure(err error) error {
	if hasOutcome(err, Refused) {
		return nil
	}
	return err
}
