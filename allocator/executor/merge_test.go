package executor

import (
	"fmt"
	"testing"
	"time"

	"portmaster/lua"
)

var (
	alone = script("return ARGV[2] .. ' alone'")
	many  = ofSeveral("local answers = {} for i = 2, #ARGV do answers[i - 1] = ARGV[i] .. ' of ' .. #KEYS - 1 end return answers")
)

// ofSeveral is a script of several calls, which has a key of each.
func ofSeveral(source string) *lua.Script {
	s := script(source)
	s.Each = []string{"own"}
	return s
}

// calls returns n calls with an own key and an own argument each; the other argument is what they have in common.
func (b batcherTest) calls(n int, by *lua.Script, common string) (calls []Call) {
	for i := range n {
		calls = append(calls, Call{
			Script: alone, Keys: []string{b.key, fmt.Sprint(b.key, i)}, Args: []any{common, fmt.Sprint(common, i)},
			Many: by, OwnArgs: 1,
		})
	}
	return calls
}

// together makes calls that wait at the same time.
func (b batcherTest) together(t *testing.T, calls []Call) []Result {
	batch := make([]*pending, len(calls))
	for i, c := range calls {
		batch[i] = newPending(c, b.deadline())
	}
	return b.batcher(batcherKey{node: b.client}).doAll(t.Context(), batch)
}

func TestCallsOfABatchRunAsOneScript(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 1000)
	calls := append(b.calls(70, many, "a"), b.calls(2, many, "b")...)
	calls = append(calls, b.calls(1, many, "c")...)
	calls = append(calls, b.calls(2, nil, "d")...)
	for i, r := range b.together(t, calls) {
		want := map[bool]string{true: fmt.Sprintf("a%d of 64", i), false: fmt.Sprintf("a%d of 6", i)}[i < 64]
		switch {
		case i >= 73:
			want = fmt.Sprintf("d%d alone", i-73)
		case i == 72:
			want = "c0 alone"
		case i >= 70:
			want = fmt.Sprintf("b%d of 2", i-70)
		}
		if r.Err != nil || r.Answer != want {
			t.Errorf("call %d: %v, %v, want %s", i, r.Answer, r.Err, want)
		}
	}
}

// Calls that have a last key and argument in common, such as those of an owner, run together, and with no others.
func TestCallsOfABatchWithALastKey(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 1000)
	by := ofSeveral("local answers = {} for i = 2, #ARGV - 1 do answers[i - 1] = ARGV[i] .. KEYS[i] .. ARGV[#ARGV] .. KEYS[#KEYS] .. #KEYS end return answers")
	calls := b.calls(9, by, "a")
	for i := range calls {
		if owner := []string{"", "x", "y"}[i%3]; owner != "" {
			calls[i].Keys, calls[i].Args, calls[i].LastArgs = append(calls[i].Keys, b.key+" of "+owner), append(calls[i].Args, owner), 1
		} else {
			calls[i].Many = many
		}
	}
	for i, r := range b.together(t, calls) {
		want := fmt.Sprintf("a%d of 3", i)
		if owner := []string{"", "x", "y"}[i%3]; owner != "" {
			want = fmt.Sprintf("a%d%s%d%s%s of %s5", i, b.key, i, owner, b.key, owner)
		}
		if r.Err != nil || r.Answer != want {
			t.Errorf("call %d: %v, %v, want %s", i, r.Answer, r.Err, want)
		}
	}
}

// What fails in a script of several calls is said to each of them, and to no other.
func TestCallsOfOneScriptThatFails(t *testing.T) {
	b := newBatcherTest(t, 5*time.Second, 1000)
	for name, test := range map[string]struct {
		source string
		want   Outcome
	}{
		"before its first change": {"redis.call('HSET', KEYS[1], 'a', 'b')", Refused}, // it is a SET
		"half-way":                {"redis.call('SET', KEYS[2], 'a')\nlocal failed = 'HALF_WRITTEN by a fault' return {failed, failed, failed}", Unknown},
		"with too few answers":    {"return {'a'}", Unknown},
		"as if Redis were full":   {"return redis.error_reply('OOM command not allowed')", NotDone},
	} {
		calls := append(b.calls(3, ofSeveral(test.source), "a"), b.calls(2, many, "b")...)
		for i, r := range b.together(t, calls) {
			if i >= 3 && (r.Err != nil || r.Answer != fmt.Sprintf("b%d of 2", i-3)) || i < 3 && !hasOutcome(r.Err, test.want) {
				t.Errorf("%s: call %d: %v, %v", name, i, r.Answer, r.Err)
			}
		}
	}
}
