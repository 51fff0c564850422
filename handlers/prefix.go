package handlers

import (
	"regexp"

	"github.com/gofiber/fiber/v2"
)

// headerPrefix is where a proxy says what it has taken off the front of the path.
const headerPrefix = "X-Forwarded-Prefix"

// maxPrefix is the longest prefix, in bytes.
const maxPrefix = 256

// proxyPrefix matches segments that a client resolves to themselves: none is empty, so that no prefix reads as a host, and none is "."
// or "..".
var proxyPrefix = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)

// prefix returns what stands before the paths of the API for a client behind a proxy; "" if nothing does, or if the header says something
// else than one prefix. Clients can send the header, too: it only changes the answer to the request that has it.
func prefix(c *fiber.Ctx) string {
	given := c.Request().Header.PeekAll(headerPrefix)
	if len(given) != 1 || len(given[0]) > maxPrefix || !proxyPrefix.Match(given[0]) {
		return ""
	}
	return string(given[0])
}
