package handlers

import (
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
