package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A client that closes its side of the connection once it has sent its request, as "nc -N" does, gets its answer: from the
// server, and from HAProxy. If its call waits, it has left the line instead.

func TestServerAnswersHalfClosed(t *testing.T) {
	server := halfClosedServer(t)
	if err := errors.Join(checkHalfClosed(server, server), checkHalfClosedWaiting(server, server)); err != nil {
		t.Error(err)
	}
}

func TestHAProxyAnswersHalfClosed(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		server := halfClosedServer(t)
		balancer := startHAProxy(t, dir, server, server, server)
		return errors.Join(checkHalfClosed(server, balancer), checkHalfClosedWaiting(server, balancer))
	},
		mutant{"haproxy.cfg", "no option abortonclose", "option abortonclose", "of 40 half-closed claims"},
	)
}

// halfClosedServer starts a server with a service, "many", that has ports, and one, "one", that has none left.
func halfClosedServer(t *testing.T) (addr string) {
	t.Helper()
	addr = crowdedServer(t)
	post(t, addr, "/v1/services", `{"name":"many","start":7001,"end":7100}`)
	return addr
}

// checkHalfClosed claims 40 ports, half of them by calls that say that they do not wait.
func checkHalfClosed(server, balancer string) error {
	const claims = 40
	var answered int
	var fault error
	for i := range claims {
		name, path := fmt.Sprint("web-", i), "/v1/services/many/ports"
		if i%2 == 1 {
			path += "?wait=0"
		}
		if err := checkClaim(server, balancer, path, name); err != nil {
			fault = err
		} else {
			answered++
		}
	}
	if fault != nil {
		return fmt.Errorf("%d of %d half-closed claims were answered with their ports: %w", answered, claims, fault)
	}
	return nil
}

// checkClaim claims a port as a half-closed client, and looks up whether it is the one that the answer tells.
func checkClaim(server, balancer, path, name string) error {
	conn, err := sendHalfClosed(balancer, path, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	got, err := readAnswer(conn)
	if err != nil {
		return err
	}
	var told, held struct {
		Port   int
		Secret string
	}
	if err := json.Unmarshal(got.body, &told); err != nil || got.status != http.StatusCreated || told.Port == 0 || told.Secret == "" {
		return fmt.Errorf("the answer is %d %s", got.status, got.body)
	}
	looked := callOnce("GET", "http://"+server+"/v1/services/many/ports/"+name)
	if err := json.Unmarshal(looked.body, &held); err != nil || held.Port != told.Port {
		return fmt.Errorf("the answer is %s, and held is %s", got.body, looked.body)
	}
	return nil
}

// checkHalfClosedWaiting lets a half-closed client wait for a port that does not come.
func checkHalfClosedWaiting(server, balancer string) error {
	conn, err := dial(balancer)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := sendClaim(conn, "/v1/services/one/ports?wait=20", "web-02"); err != nil {
		return err
	}
	if err := awaitLine(server, 1, 4*time.Second); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if err := awaitLine(server, 0, 2*time.Second); err != nil {
		return err
	}
	switch got, err := readAnswer(conn); {
	case err == nil && got.status == 499 && len(got.body) == 0: // the server
		return nil
	default:
		return errors.Join(err, got.isProblem("INVALID")) // HAProxy
	}
}

func sendHalfClosed(addr, path, name string) (*net.TCPConn, error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(sendClaim(conn, path, name), conn.CloseWrite()); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// dial opens a connection that ends when the test's patience does.
func dial(addr string) (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn), nil
}

func sendClaim(conn net.Conn, path, name string) error {
	body := fmt.Sprintf(`{"name":%q}`, name)
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	return err
}

// readAnswer reads an answer. Its error is io.EOF or io.ErrUnexpectedEOF if the connection ended first.
func readAnswer(conn net.Conn) (answer, error) {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body}, err
}
