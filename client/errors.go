package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Code is the one word for an error, as the API has it.
type Code string

// The errors to compare with, by errors.Is.
var (
	ErrInvalid              = &Error{Code: "INVALID"}                // the request is malformed or out of bounds; see Fields
	ErrServiceNotFound      = &Error{Code: "SERVICE_NOT_FOUND"}      // the pool has no such service
	ErrOfferNotFound        = &Error{Code: "OFFER_NOT_FOUND"}        // the secret opens no offer of the service, or the offer expired
	ErrPortNotFound         = &Error{Code: "PORT_NOT_FOUND"}         // the service has no such allocation, or its lease ended
	ErrNotFound             = &Error{Code: "NOT_FOUND"}              // the server has no such route: it is older than this client
	ErrMethodNotAllowed     = &Error{Code: "METHOD_NOT_ALLOWED"}     // the route has no such method
	ErrTimeout              = &Error{Code: "TIMEOUT"}                // the request took too long to arrive
	ErrServiceExists        = &Error{Code: "SERVICE_EXISTS"}         // a service of that name is defined
	ErrRangeOverlap         = &Error{Code: "RANGE_OVERLAP"}          // another service of the pool has some of these ports
	ErrRangeInUse           = &Error{Code: "RANGE_IN_USE"}           // a port outside the new range is allocated or on offer
	ErrServiceInUse         = &Error{Code: "SERVICE_IN_USE"}         // ports of the service are allocated or on offer
	ErrLimitReached         = &Error{Code: "LIMIT_REACHED"}          // the pool has as many services as it may, or there are as many pools
	ErrNameTaken            = &Error{Code: "NAME_TAKEN"}             // the name already has a port or an open offer
	ErrOfferAccepted        = &Error{Code: "OFFER_ACCEPTED"}         // the offer was accepted before
	ErrOfferRejected        = &Error{Code: "OFFER_REJECTED"}         // the offer was rejected before
	ErrExhausted            = &Error{Code: "EXHAUSTED"}              // no port is free, or other calls wait for one; see RetryAfter
	ErrPortTaken            = &Error{Code: "PORT_TAKEN"}             // the exact port is not free; see RetryAfter
	ErrSecretMismatch       = &Error{Code: "SECRET_MISMATCH"}        // the allocation has another secret
	ErrNotOwner             = &Error{Code: "NOT_OWNER"}              // it belongs to another owner
	ErrQuotaExceeded        = &Error{Code: "QUOTA_EXCEEDED"}         // the owner would hold more ports in the pool than it may
	ErrPreconditionFailed   = &Error{Code: "PRECONDITION_FAILED"}    // the allocation has another fence
	ErrPreconditionRequired = &Error{Code: "PRECONDITION_REQUIRED"}  // the server wants the secret or the fence of what is released
	ErrUnauthenticated      = &Error{Code: "UNAUTHENTICATED"}        // the server wants a token, and got none that is valid
	ErrForbidden            = &Error{Code: "FORBIDDEN"}              // the caller's role or scope does not include the call
	ErrMisdirected          = &Error{Code: "MISDIRECTED"}            // the open server does not know the host of its address
	ErrRateLimited          = &Error{Code: "RATE_LIMITED"}           // the caller makes more calls a second than it may
	ErrTooLarge             = &Error{Code: "TOO_LARGE"}              // the header or the body is over the server's limit
	ErrUnsupportedMediaType = &Error{Code: "UNSUPPORTED_MEDIA_TYPE"} // the body is not plain application/json
	ErrTooManyWaiting       = &Error{Code: "TOO_MANY_WAITING"}       // every port is taken, and the server's waitlist is full
	ErrInternal             = &Error{Code: "INTERNAL"}               // a fault of the server; its log says more under RequestID
	ErrUnavailable          = &Error{Code: "UNAVAILABLE"}            // nothing was done: the server cannot be reached, or Redis cannot
	ErrOutcomeUnknown       = &Error{Code: "OUTCOME_UNKNOWN"}        // the call may have been done: there was no answer, or half of one
)

// Error is why a call failed. Its text is one line and has no secret.
type Error struct {
	Code       Code          // "" for an answer that is not Portmaster's
	Status     int           // of HTTP; 0 if there was no answer
	Detail     string        // one sentence for people
	Fields     []FieldError  // the faults of ErrInvalid, and the requests of a list that are at fault
	RequestID  string        // under which the server's log has more; "" if there was no answer
	RetryAfter time.Duration // when another try may be worth it, in whole seconds; 0 if that is not known

	cause error // what the network said
	final bool  // repeating the call would not help
}

// FieldError is one fault of a request.
type FieldError struct {
	Field  string `json:"field"` // its name in the body, the query or the path; in a list with its position, from 0: "[1].name"
	Detail string `json:"detail"`
}

// Error returns the code, the detail, and the faults.
func (e *Error) Error() string {
	text := e.Detail
	if e.Code != "" {
		text = string(e.Code) + ": " + text
	}
	for _, f := range e.Fields {
		text += "; " + f.Field + ": " + f.Detail
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return strings.Join(strings.Fields(text), " ")
}

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && e.Code != ""
}

// Unwrap returns what the network said, if it was the network.
func (e *Error) Unwrap() error { return e.cause }

// repeatable reports whether the call may succeed when it is made again, and whether this attempt may have done it.
func (e *Error) repeatable() (again, doubt bool) {
	switch e.Code {
	case ErrUnavailable.Code, ErrTimeout.Code, ErrRateLimited.Code:
		return !e.final, false
	case ErrOutcomeUnknown.Code:
		return !e.final, true
	}
	return false, false
}

// lastOf returns the *Error in the error of a call.
func lastOf(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{}
}

// problemOf reads the error that an answer is. One that is not Portmaster's, such as a load balancer's, gets the code that its
// status stands for, if any.
func problemOf(status int, header http.Header, body []byte) *Error {
	var p struct {
		Code, Detail string
		Errors       []FieldError
	}
	e := &Error{Status: status, RequestID: header.Get("X-Request-ID"), RetryAfter: retryAfter(header.Get("Retry-After"))}
	if json.Unmarshal(body, &p) == nil && p.Code != "" && p.Detail != "" {
		e.Code, e.Detail, e.Fields = Code(p.Code), p.Detail, p.Errors
		return e
	}
	e.Detail = "the server answered " + strconv.Itoa(status) + " " + http.StatusText(status) + ", and not as Portmaster does"
	switch {
	case status == http.StatusServiceUnavailable:
		e.Code = ErrUnavailable.Code
	case status == http.StatusBadGateway || status == http.StatusGatewayTimeout:
		e.Code = ErrOutcomeUnknown.Code
	case status >= 300 && status < 400:
		e.Detail = "the server redirects to another address, which is not followed"
		if to, err := url.Parse(header.Get("Location")); err == nil && to.Host != "" { // the path may contain a secret
			e.Detail += ": " + to.Scheme + "://" + to.Host
		}
	}
	return e
}

// retryAfter reads a Retry-After header: seconds, or a date.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(seconds, 0), 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0).Round(time.Second)
	}
	return 0
}
