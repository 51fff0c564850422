package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// visitor returns the client of the test itself, which keeps no connection.
func visitor() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// request is a call.
type request struct {
	method, path, body string
	secret             string // of the header Portmaster-Secret
	fence              int64  // of If-Match, where it is not 0
}

// reply is what the tests read of any answer. code is the problem's, or else the status.
type reply struct {
	status     int // 0 where no answer came
	code       string
	retryAfter string
	held
	list   []held // where the answer is an array
	at     []string
	detail string
}

// held is an offer or an allocation.
type held struct {
	Name, Secret     string
	Port, Count      int
	Fence            int64
	Created, Expires time.Time
	Labels           struct{ Job string }
}

// send makes the call to a server. The code of the reply is the reason where no answer came.
func (q request) send(ctx context.Context, client *http.Client, server string) reply {
	call, err := http.NewRequestWithContext(ctx, q.method, server+q.path, strings.NewReader(q.body))
	if err != nil {
		return reply{code: err.Error()}
	}
	if q.body != "" {
		call.Header.Set("Content-Type", "application/json")
	}
	if q.secret != "" {
		call.Header.Set("Portmaster-Secret", q.secret)
	}
	if q.fence != 0 {
		call.Header.Set("If-Match", fmt.Sprintf(`"%d"`, q.fence))
	}
	response, err := client.Do(call)
	if err != nil {
		return reply{code: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{code: err.Error()}
	}
	return readReply(response, text)
}

func readReply(response *http.Response, text []byte) reply {
	answer := reply{status: response.StatusCode, code: strconv.Itoa(response.StatusCode), retryAfter: response.Header.Get("Retry-After")}
	var err error
	switch {
	case response.StatusCode < 400 && !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json"): // no port
	case response.StatusCode >= 400:
		var problem struct {
			Code, Detail string
			Errors       []struct{ Field string }
		}
		err = json.Unmarshal(text, &problem)
		answer.code, answer.detail = problem.Code, problem.Detail
		for _, e := range problem.Errors {
			answer.at = append(answer.at, e.Field)
		}
	case bytes.HasPrefix(text, []byte("[")):
		err = json.Unmarshal(text, &answer.list)
	case len(text) > 0:
		err = json.Unmarshal(text, &answer.held)
	}
	if err != nil {
		return reply{code: fmt.Sprintf("%s: %v", text, err)}
	}
	return answer
}
