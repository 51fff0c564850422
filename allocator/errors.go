package allocator

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"portmaster/allocator/epoch"
	"portmaster/allocator/executor"
)

// Code is the one word by which an error is known in Lua, in Go and in HTTP.
type Code string

// The codes of every error that a call can answer with.
const (
	CodeInvalid              Code = "INVALID"
	CodeServiceNotFound      Code = "SERVICE_NOT_FOUND"
	CodeOfferNotFound        Code = "OFFER_NOT_FOUND"
	CodePortNotFound         Code = "PORT_NOT_FOUND"
	CodeServiceExists        Code = "SERVICE_EXISTS"
	CodeRangeOverlap         Code = "RANGE_OVERLAP"
	CodeRangeInUse           Code = "RANGE_IN_USE"
	CodeServiceInUse         Code = "SERVICE_IN_USE"
	CodeLimitReached         Code = "LIMIT_REACHED"
	CodeNameTaken            Code = "NAME_TAKEN"
	CodeOfferAccepted        Code = "OFFER_ACCEPTED"
	CodeOfferRejected        Code = "OFFER_REJECTED"
	CodeExhausted            Code = "EXHAUSTED"
	CodePortTaken            Code = "PORT_TAKEN"
	CodeTooManyWaiting       Code = "TOO_MANY_WAITING"
	CodeSecretMismatch       Code = "SECRET_MISMATCH"
	CodeNotOwner             Code = "NOT_OWNER"
	CodeQuotaExceeded        Code = "QUOTA_EXCEEDED"
	CodePreconditionFailed   Code = "PRECONDITION_FAILED"
	CodePreconditionRequired Code = "PRECONDITION_REQUIRED"
	CodeUnavailable          Code = "UNAVAILABLE"
	CodeOutcomeUnknown       Code = "OUTCOME_UNKNOWN"
)

// The errors to compare with, by errors.Is.
var (
	ErrInvalid              = &Error{Code: CodeInvalid}              // bad input; Fields lists every fault
	ErrServiceNotFound      = &Error{Code: CodeServiceNotFound}      // no such service in the pool
	ErrOfferNotFound        = &Error{Code: CodeOfferNotFound}        // no such offer of the service, or it expired
	ErrPortNotFound         = &Error{Code: CodePortNotFound}         // no such allocation of the service
	ErrServiceExists        = &Error{Code: CodeServiceExists}        // a service of that name is defined
	ErrRangeOverlap         = &Error{Code: CodeRangeOverlap}         // another service of the pool has some of these ports
	ErrRangeInUse           = &Error{Code: CodeRangeInUse}           // a port held or on offer would fall outside
	ErrServiceInUse         = &Error{Code: CodeServiceInUse}         // ports are held or on offer
	ErrLimitReached         = &Error{Code: CodeLimitReached}         // the pool has its maximum of services, or this store of pools
	ErrNameTaken            = &Error{Code: CodeNameTaken}            // the instance name holds a port or an open offer
	ErrOfferAccepted        = &Error{Code: CodeOfferAccepted}        // the offer was accepted before
	ErrOfferRejected        = &Error{Code: CodeOfferRejected}        // the offer was rejected before
	ErrExhausted            = &Error{Code: CodeExhausted}            // no port is free; see RetryAfter
	ErrPortTaken            = &Error{Code: CodePortTaken}            // the port asked for is not free; see RetryAfter
	ErrTooManyWaiting       = &Error{Code: CodeTooManyWaiting}       // too many calls wait already
	ErrSecretMismatch       = &Error{Code: CodeSecretMismatch}       // the allocation has another secret
	ErrNotOwner             = &Error{Code: CodeNotOwner}             // it belongs to another owner
	ErrQuotaExceeded        = &Error{Code: CodeQuotaExceeded}        // the owner would hold more ports than it may
	ErrPreconditionFailed   = &Error{Code: CodePreconditionFailed}   // the allocation has another fence
	ErrPreconditionRequired = &Error{Code: CodePreconditionRequired} // releasing needs a secret or a fence
	ErrUnavailable          = &Error{Code: CodeUnavailable}          // Redis did not take the call: nothing was done
	ErrOutcomeUnknown       = &Error{Code: CodeOutcomeUnknown}       // Redis took the call and did not answer
)

// Error is what every failed call returns. Its text never holds a secret.
type Error struct {
	Code       Code
	Detail     string        // one sentence for people
	Fields     []FieldError  // for CodeInvalid, and the requests that are at fault
	RetryAfter time.Duration // after what time to try again; 0 if that is not known
	cause      error
}

// FieldError is one fault of the input.
type FieldError struct {
	Field  string // its name in the body, the path or the query
	Detail string
}

func (e *Error) Error() string {
	text := string(e.Code) + ": " + e.Detail
	for _, f := range e.Fields {
		text += "; " + f.Field + ": " + f.Detail
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Is reports whether target is an Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Unwrap returns what Redis or the network reported.
func (e *Error) Unwrap() error { return e.cause }

// Invalid returns the error of bad input.
func Invalid(fields ...FieldError) *Error {
	return &Error{Code: CodeInvalid, Detail: "the request is malformed or out of bounds", Fields: fields}
}

// retryAfter is how long a caller should wait when Redis is away.
const retryAfter = time.Second

func unavailable(what string, cause error) *Error {
	return &Error{Code: CodeUnavailable, Detail: what + "; nothing was done", RetryAfter: retryAfter, cause: cause}
}

func unknown(what string, cause error) *Error {
	return &Error{Code: CodeOutcomeUnknown, Detail: what + "; repeat the call with the same secret", RetryAfter: retryAfter, cause: cause}
}

// translate turns an error of the executor or of the epoch into what it means to a caller. One that no caller can be told anything
// about, such as a script that does not run, stays as it is.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if fault, ok := errors.AsType[*epoch.Error](err); ok {
		return unavailable(fault.Detail, nil)
	}
	failed, ok := errors.AsType[*executor.Error](err)
	switch {
	case !ok:
		return err
	case failed.Outcome == executor.Unknown:
		return unknown(failed.Detail, failed.Cause)
	case failed.Outcome == executor.Refused:
		if known := fromScript(Code(failed.Code), failed.Detail); known != nil {
			return known
		}
		return err
	case errors.Is(failed.Cause, executor.ErrMissing):
		return unavailable(epoch.ErrLost.Detail, failed.Cause)
	}
	return unavailable(failed.Detail, failed.Cause)
}

// notGone returns the error of a call about something that is not there, or that belongs to another holder. If the state is lost,
// it says that instead, so that no holder concludes that its port is gone; and since this server may not have noticed yet, it looks.
func (a *Allocator) notGone(ctx context.Context, pool string, err error) error {
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	switch failed.Code {
	case CodeServiceNotFound, CodePortNotFound, CodeOfferNotFound, CodeSecretMismatch, CodeNotOwner, CodePreconditionFailed:
		if err := a.epoch.Recall(ctx); err != nil {
			return translate(err)
		}
		if err := a.epoch.CheckFences(ctx, pool); err != nil {
			return translate(err)
		}
		if err := a.epoch.Fault(); err != nil {
			return translate(err)
		}
	}
	return err
}

// wasRefused reports whether a call ended with an error that its script answered.
func wasRefused(err error) bool {
	failed, ok := errors.AsType[*Error](err)
	return ok && failed.Code != CodeUnavailable && failed.Code != CodeOutcomeUnknown
}

// fromScript reads an error that a script answered with: a code, and a detail for people. It returns nil for an error of Redis itself.
func fromScript(code Code, detail string) *Error {
	switch code {
	case CodeInvalid:
		field, fault, _ := strings.Cut(detail, " ")
		return Invalid(FieldError{field, fault})
	case CodeExhausted, CodePortTaken:
		ms, sentence, _ := strings.Cut(detail, " ")
		wait, err := strconv.ParseInt(ms, 10, 64)
		if err != nil || wait < 0 {
			wait = 0
		}
		return &Error{Code: code, Detail: sentence, RetryAfter: time.Duration(wait) * time.Millisecond}
	case CodeServiceNotFound, CodeOfferNotFound, CodePortNotFound, CodeServiceExists, CodeRangeOverlap, CodeRangeInUse,
		CodeServiceInUse, CodeLimitReached, CodeNameTaken, CodeOfferAccepted, CodeOfferRejected, CodeSecretMismatch, CodePreconditionFailed,
		CodeNotOwner, CodeQuotaExceeded:
		return &Error{Code: code, Detail: detail}
	}
	return nil
}
