package check

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// replicas are stand-ins for servers that die of a request: they are ready, read it to its end, and hang up.
type replicas struct {
	addrs    []string
	requests atomic.Int64
}

func deadReplicas(t *testing.T, n int) *replicas {
	t.Helper()
	r := &replicas{}
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		r.addrs = append(r.addrs, l.Addr().String())
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go r.serve(conn)
			}
		}()
	}
	return r
}

func (r *replicas) serve(conn net.Conn) {
	defer conn.Close()
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	if request.URL.Path == "/readyz" {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	io.Copy(io.Discard, request.Body)
	r.requests.Add(1)
}

// liveReplica answers every request.
func liveReplica(t *testing.T) (addr string) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request that changes something, if its method does.
func call(t *testing.T, method, addr string) answer {
	t.Helper()
	return callOnce(method, "http://"+addr+"/v1/services/django/ports/web-01")
}

// callOnce sends a request on a connection of its own, and never again. The status is 0 where no answer came.
func callOnce(method, url string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var body io.Reader
	if method == "POST" || method == "PUT" {
		body = strings.NewReader("{}")
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}
	}
	request.Close = true
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return answer{}
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, text}
}
