package executor

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"

	"portmaster/lua"
)

// evalSHA returns the command that runs a script. Keys go in by pointers, which need no copy to become an any.
func evalSHA(script *lua.Script, keys []string, args []any) []any {
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "evalsha", script.Hash, len(keys))
	for i := range keys {
		command = append(command, &keys[i])
	}
	return append(command, args...)
}

// end tells a call how it ended.
func (c *pending) end(answer any, err error) {
	c.answer, c.err = answer, err
	c.ended <- struct{}{}
}

// endAll tells a call and its riders how their command ended.
func (c *pending) endAll(err error) {
	if len(c.riders) == 0 {
		c.end(c.Val(), err)
		return
	}
	answers, _ := c.Val().([]any)
	if err == nil && len(answers) != 1+len(c.riders) {
		err = unknown("the script answered another number of calls", nil)
	}
	if err != nil {
		answers = make([]any, 1+len(c.riders))
	}
	for i, rider := range c.riders {
		rider.endOne(answers[1+i], err)
	}
	c.endOne(answers[0], err)
}

// endOne tells one of several calls how it ended.
func (c *pending) endOne(answer any, err error) {
	if text, ok := answer.(string); ok && strings.HasPrefix(text, halfWritten) {
		answer, err = nil, unknown("the script failed after its first change", errors.New(text))
	}
	c.end(answer, err)
}

// send runs a batch and ends its calls. Its deadline is that of the oldest.
func (b *batcher) send(batch []*pending) {
	if len(batch) == 0 {
		return
	}
	batch = merge(batch)
	ctx, cancel := context.WithDeadline(context.Background(), batch[0].deadline)
	defer cancel()
	unconfirmed := b.exec(ctx, nil, batch)
	var again []*pending // after a start or a failover Redis has to be told each script, once
	for _, c := range batch {
		switch {
		case !redis.HasErrorPrefix(c.Err(), "NOSCRIPT"):
			c.endAll(conclude(c.Err(), unconfirmed))
		case errors.Is(unconfirmed, ErrMissing): // it would change a state that is lost
			c.endAll(notDone("the state is lost", unconfirmed))
		default:
			again = append(again, c)
		}
	}
	if len(again) > 0 {
		unconfirmed = b.exec(ctx, scriptsOf(again), again)
		for _, c := range again {
			c.endAll(conclude(c.Err(), unconfirmed))
		}
	}
}

// conclude says how a call ended. What a script answered, be it an error, is no answer yet where too few replicas have what
// it rests on; unconfirmed says why.
func conclude(err, unconfirmed error) error {
	err = classify(err)
	if unconfirmed != nil && (err == nil || hasOutcome(err, Refused)) {
		return unknown("too few replicas confirmed the change", unconfirmed)
	}
	return err
}

func scriptsOf(calls []*pending) map[string]*lua.Script {
	scripts := map[string]*lua.Script{}
	for _, c := range calls {
		scripts[c.script().Hash] = c.script()
	}
	return scripts
}

// exec loads scripts and runs the commands of a batch, in one round trip. Each holds its own answer or error afterwards;
// unconfirmed says why those that succeeded cannot be answered yet: too few replicas have what they rest on.
func (b *batcher) exec(ctx context.Context, load map[string]*lua.Script, batch []*pending) (unconfirmed error) {
	pipeline := b.node.Pipeline()
	for _, script := range load {
		pipeline.ScriptLoad(ctx, script.Source)
	}
	for _, c := range batch {
		c.SetErr(nil)
		if c.asking {
			pipeline.Do(ctx, "asking")
		}
		_ = pipeline.Process(ctx, c)
	}
	if b.replicas > 0 {
		return b.execReplicated(ctx, pipeline, batch)
	}
	_, _ = pipeline.Exec(ctx)
	return nil
}
