package connection

import (
	"net"
	"testing"
	"time"
)

// layered is a connection on top of another one, as that of TLS is.
type layered struct{ net.Conn }

func (l layered) NetConn() net.Conn { return l.Conn }

// pair returns the two ends of a TCP connection.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		client.Close()
	})
	return server, client
}

func (w *Watcher) isRunning() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watched != nil
}

// The socket is found below what is on top of it.
func TestSocketBelow(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	if _, _, err := new(Watcher).Watch(layered{ours}, nil); err == nil {
		t.Error("a pipe has a socket")
	}
	conn, _ := pair(t)
	below, err := socketOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	above, err := socketOf(layered{layered{conn}})
	if err != nil || above != below {
		t.Errorf("socket %d, %v, want %d", above, err, below)
	}
}

// A Watcher tells of the connection that is closed and of no other. It ends with the last watch, and begins again.
func TestWatcher(t *testing.T) {
	var w Watcher
	for range 2 {
		gone := make(chan string, 100)
		conn1, client1 := pair(t)
		conn2, client2 := pair(t)
		closed1, stop1, err1 := w.Watch(conn1, func() { gone <- "first" })
		closed2, stop2, err2 := w.Watch(layered{conn2}, func() { gone <- "second" })
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if closed1() || closed2() {
			t.Error("a connection is closed that is not")
		}
		client1.Close()
		if who := <-gone; who != "first" || !closed1() || closed2() {
			t.Errorf("%s is gone; closed: %t, %t", who, closed1(), closed2())
		}
		stop1()
		stop2()
		for len(gone) > 0 {
			<-gone
		}
		client2.Close()
		for deadline := time.Now().Add(10 * time.Second); w.isRunning(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it still watches")
			}
		}
		if len(gone) > 0 {
			t.Errorf("%s is gone, and was not watched any more", <-gone)
		}
	}
}
