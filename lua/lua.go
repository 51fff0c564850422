// Package lua holds the scripts that decide who gets a port: one file per act, each headed by its contract.
//
// A script is sent to Redis as its file with the fragments it uses in front: clock.lua, which reads the time once, and
// secret.lua, find.lua or describe.lua: what several acts have to read the same way.
package lua

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed clock.lua
	clock string
	//go:embed secret.lua
	secret string
	//go:embed find.lua
	find string
	//go:embed describe.lua
	describe string

	//go:embed define.lua
	define string
	//go:embed remove.lua
	remove string
	//go:embed offer.lua
	offer string
	//go:embed accept.lua
	accept string
	//go:embed reject.lua
	reject string
	//go:embed release.lua
	release string
	//go:embed read_service.lua
	readService string
	//go:embed read_offer.lua
	readOffer string
	//go:embed read_allocation.lua
	readAllocation string
)

// The scripts. KEYS, ARGV, answers and errors stand at the head of each one's file.
var (
	Define         = redis.NewScript(clock + describe + define)
	Remove         = redis.NewScript(clock + remove)
	Offer          = redis.NewScript(clock + secret + offer)
	Accept         = redis.NewScript(clock + secret + accept)
	Reject         = redis.NewScript(clock + secret + reject)
	Release        = redis.NewScript(clock + find + release)
	ReadService    = redis.NewScript(clock + describe + readService)
	ReadOffer      = redis.NewScript(clock + secret + readOffer)
	ReadAllocation = redis.NewScript(find + readAllocation)
)
