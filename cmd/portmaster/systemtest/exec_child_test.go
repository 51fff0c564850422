package systemtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// asChild makes the test's executable be the command that portmaster exec runs: its value says what it does.
const asChild = "RUN_AS_THE_CHILD"

// runChild is such a command. Its output goes where that of exec goes.
func runChild(what string) {
	switch what {
	case "report": // the signals that it and a child of its own get
		grandchild := exec.Command(os.Args[0])
		grandchild.Env = append(os.Environ(), asChild+"=report as grandchild")
		grandchild.Stdout = os.Stdout
		if err := grandchild.Start(); err != nil {
			panic(err)
		}
		report("command")
		grandchild.Wait()
		os.Exit(3)
	case "report as grandchild":
		report("grandchild")
	case "bind": // its port, and say so, for as long as the argument says
		work, err := time.ParseDuration(os.Args[1])
		if err != nil {
			panic(err)
		}
		socket, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
		if err != nil {
			fmt.Println("collision:", err)
			os.Exit(9)
		}
		fmt.Printf("%s bound %s\n", os.Getenv("PORTMASTER_NAME"), os.Getenv("PORT"))
		time.Sleep(work)
		socket.Close()
	case "daemon": // that outlives the command, and has its port
		daemon := exec.Command(os.Args[0], "5s")
		daemon.Env = append(os.Environ(), asChild+"=bind")
		said, err := daemon.StdoutPipe()
		if err == nil {
			err = daemon.Start()
		}
		if err != nil {
			panic(err)
		}
		said.Read(make([]byte, 100))
	}
}

// report prints each signal that comes, and returns half a second after the first.
func report(who string) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	fmt.Printf("%s started as %d\n", who, os.Getpid())
	var over <-chan time.Time
	for {
		select {
		case s := <-signals:
			fmt.Printf("%s got %s\n", who, strings.ReplaceAll(s.String(), " ", "-"))
			if over == nil && s != syscall.SIGUSR1 {
				over = time.After(500 * time.Millisecond)
			}
		case <-over:
			return
		}
	}
}
