package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// The plain route decodes and encodes what an offer does, in a process of its own, and asks nobody: what HTTP alone costs.

// plainBody is the body of a request to the plain route.
const plainBody = `{"name":"holder-0"}`

type plainOffer struct {
	Service string    `json:"service"`
	Name    string    `json:"name"`
	Port    int       `json:"port"`
	Secret  string    `json:"secret"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

func plain(c *fiber.Ctx) error {
	var request struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(c.Body(), &request, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	body, err := json.Marshal(plainOffer{
		Service: c.Params("service"),
		Name:    request.Name,
		Port:    5000,
		Secret:  "6f8ffc86-d98a-49ba-848a-a7cbaaea9360",
		Created: time.UnixMilli(1763800000000).UTC(),
		Expires: time.UnixMilli(1763801800000).UTC(),
	})
	if err != nil {
		return err
	}
	c.Response().Header.SetContentType(fiber.MIMEApplicationJSON)
	return c.Status(fiber.StatusCreated).Send(body)
}

// servePlain serves the plain route at an address until the process ends.
func servePlain(addr string) error {
	app := fiber.New(fiber.Config{
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, BodyLimit: 64 << 10,
		DisableStartupMessage: true, DisablePreParseMultipartForm: true,
	})
	app.Get("/readyz", func(c *fiber.Ctx) error { return c.SendStatus(fiber.StatusOK) })
	app.Post("/v1/pools/:pool/services/:service/plain", plain)
	return app.Listen(addr)
}

// startPlain starts this program once more, to serve the plain route.
func (b *bench) startPlain() error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.plain = exec.Command(self, "-serve-plain", addr)
	b.plain.Stderr = os.Stderr
	if err := b.plain.Start(); err != nil {
		return err
	}
	b.plainURL = "http://" + addr + "/v1/pools/bench/services/plain/plain"
	return awaitReady("http://" + addr)
}

// plainCall returns a function that calls the plain route, over a connection of its own.
func (b *bench) plainCall() func() error {
	client := &fasthttp.Client{MaxConnsPerHost: 1}
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	request.SetRequestURI(b.plainURL)
	request.Header.SetMethod("POST")
	request.Header.SetContentType("application/json")
	request.SetBodyString(plainBody)
	return func() error {
		err := client.Do(request, response)
		if err == nil && response.StatusCode() != fasthttp.StatusCreated {
			err = fmt.Errorf("the plain route answered with %d", response.StatusCode())
		}
		return err
	}
}

// loadOf lets clients make calls for one window, each by a function that newCall returns, and returns how many they made.
func (b *bench) loadOf(clients int, newCall func() func() error) (calls float64, err error) {
	var count atomic.Int64
	errs := make(chan error, clients)
	var running sync.WaitGroup
	end := time.Now().Add(b.window)
	for range clients {
		running.Go(func() {
			call := newCall()
			for time.Now().Before(end) {
				if err := call(); err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
		})
	}
	running.Wait()
	close(errs)
	return float64(count.Load()), <-errs
}
