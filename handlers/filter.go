package handlers

import (
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// ofFilter are the query parameters that say which offers or allocations are meant.
var ofFilter = []string{"owner", "name", "name_prefix", "label"}

// filter reads them.
func filter(c *fiber.Ctx) allocator.Filter {
	value := func(name string) string { return strings.Clone(c.Query(name)) }
	return allocator.Filter{Owner: value("owner"), Name: value("name"), NamePrefix: value("name_prefix"), Label: value("label")}
}

// filterQuery returns those that a request has, each behind an &, for the query of the next page.
func filterQuery(c *fiber.Ctx) (query string) {
	for _, name := range ofFilter {
		if value := c.Query(name); value != "" {
			query += "&" + name + "=" + url.QueryEscape(value)
		}
	}
	return query
}
