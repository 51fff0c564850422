package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/spf13/cobra"

	"portmaster/client"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		code int
	}{
		{errors.New("x"), codeError},
		{Usage("x"), codeUsage},
		{fmt.Errorf("y: %w", &Exit{130, nil}), 130},
		{client.ErrInvalid, codeUsage},
		{client.ErrExhausted, codeExhausted},
		{fmt.Errorf("x: %w", client.ErrUnavailable), codeTryAgain},
		{client.ErrOutcomeUnknown, codeTryAgain},
		{client.ErrTooManyWaiting, codeTryAgain},
		{client.ErrTimeout, codeTryAgain},
		{client.ErrLost, codeTryAgain},
		{client.ErrInternal, codeError},
		{fmt.Errorf("%w: %w", context.Canceled, client.ErrUnavailable), codeError},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, client.ErrUnavailable), codeTryAgain},
		{client.ErrPreconditionRequired, codeNotAllowed},
		{&client.Error{Code: "SECRET_MISMATCH", Status: 403}, codeNotAllowed},
		{&client.Error{Code: "UNAUTHENTICATED", Status: 401}, codeNotAllowed},
		{&client.Error{Code: "FORBIDDEN", Status: 403}, codeNotAllowed},
		{&client.Error{Code: "MISDIRECTED", Status: 421}, codeNotAllowed},
		{&client.Error{Code: "RATE_LIMITED", Status: 429}, codeTryAgain},
		{&client.Error{Code: "PORT_NOT_FOUND", Status: 404}, codeNotFound},
		{&client.Error{Code: "NAME_TAKEN", Status: 409}, codeConflict},
		{&client.Error{Code: "PRECONDITION_FAILED", Status: 412}, codeConflict},
		{&client.Error{Code: "NEW", Status: 429}, codeTryAgain},
		{&client.Error{Status: 302}, codeError},
	} {
		if code := CodeOf(test.err); code != test.code {
			t.Errorf("%v: %d, want %d", test.err, code, test.code)
		}
	}
}

// An error is one line, whatever it says; that of an Exit without one is none.
func TestErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		code   int
		stderr string
	}{
		{errors.New("a\nb\x1b[2J\tc"), codeError, "portmaster: a b\uFFFD[2J c\n"},
		{&Exit{9, nil}, 9, ""},
		{&Exit{9, errors.New("x")}, 9, "portmaster: x\n"},
		{nil, 0, ""},
	} {
		root := &cobra.Command{Use: "portmaster", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return test.err }}
		root.SetArgs(nil)
		var stderr bytes.Buffer
		if code := Execute(t.Context(), root, &stderr); code != test.code || stderr.String() != test.stderr {
			t.Errorf("%v: %d %q", test.err, code, stderr.String())
		}
	}
}
