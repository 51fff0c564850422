package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"portmaster/client"
)

// The exit codes of all commands.
const (
	codeError      = 1
	codeUsage      = 2
	codeNotFound   = 3
	codeConflict   = 4
	codeExhausted  = 5
	codeNotAllowed = 6
	codeTryAgain   = 75 // EX_TEMPFAIL of sysexits.h

	codeInterrupted = 130 // of a command whose only end is an interrupt
)

// exitCodes is what the help says of them.
const exitCodes = `Exit codes: 0 done, 1 error, 2 wrong usage, 3 not found, 4 conflict, 5 no port is free, 6 not allowed,
75 try again: the server or Redis cannot be reached, or too many calls wait.`

// Exit is the error of a command that knows its exit code. If Err is nil, nothing is printed.
type Exit struct {
	Code int
	Err  error
}

func (e *Exit) Error() string {
	if e.Err == nil {
		return "exit code " + strconv.Itoa(e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns what is printed.
func (e *Exit) Unwrap() error { return e.Err }

// Usage returns the error of a command line that is wrong.
func Usage(format string, args ...any) error { return &Exit{codeUsage, fmt.Errorf(format, args...)} }

// Execute runs a command line, prints its error as one line, and returns the exit code.
func Execute(ctx context.Context, root *cobra.Command, stderr io.Writer) (code int) {
	var ran bool
	mark(root, &ran)
	failed, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	code = CodeOf(err)
	exit, known := errors.AsType[*Exit](err)
	if !known && !ran { // it is cobra's, of the arguments or the flags
		code = codeUsage
	}
	if known && exit.Err == nil {
		return code
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if code == codeUsage && !ran {
		text += "; see " + failed.CommandPath() + " --help"
	}
	fmt.Fprintln(stderr, "portmaster:", printable(text))
	return code
}

// mark has each command tell that it ran.
func mark(cmd *cobra.Command, ran *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*ran = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		mark(sub, ran)
	}
}

// CodeOf returns the exit code for the error of a command that ran.
func CodeOf(err error) int {
	if exit, ok := errors.AsType[*Exit](err); ok {
		return exit.Code
	}
	failed, ok := errors.AsType[*client.Error](err)
	switch {
	case errors.Is(err, client.ErrLost):
		return codeTryAgain
	case !ok || errors.Is(err, context.Canceled):
		return codeError
	}
	switch failed.Code {
	case client.ErrInvalid.Code:
		return codeUsage
	case client.ErrExhausted.Code:
		return codeExhausted
	case client.ErrPreconditionRequired.Code:
		return codeNotAllowed
	case client.ErrUnavailable.Code, client.ErrOutcomeUnknown.Code, client.ErrTimeout.Code, client.ErrTooManyWaiting.Code:
		return codeTryAgain
	}
	switch failed.Status { // so that a code that is new has its exit code as well
	case 401, 403, 421:
		return codeNotAllowed
	case 404:
		return codeNotFound
	case 409, 412:
		return codeConflict
	case 429, 502, 503, 504:
		return codeTryAgain
	}
	return codeError
}
