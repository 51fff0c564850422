// Package lua holds the scripts that decide who gets a port: one file per act, each headed by its contract.
//
// A script is sent to Redis as its file with the fragments it uses in front: clock.lua, which reads the time once, and
// secret.lua, find.lua or describe.lua: what several acts have to read the same way.
package lua

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
)

// Script is one act, as it is sent to Redis.
type Script struct {
	Source string
	Hash   string // the SHA-1 of Source, by which Redis knows a script that was loaded
}

func script(source string) *Script {
	sum := sha1.Sum([]byte(source))
	return &Script{source, hex.EncodeToString(sum[:])}
}

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
	//go:embed recall.lua
	recall string
	//go:embed recover.lua
	recovery string
	//go:embed read_service.lua
	readService string
	//go:embed read_offer.lua
	readOffer string
	//go:embed read_allocation.lua
	readAllocation string
)

// The scripts. KEYS, ARGV, answers and errors stand at the head of each one's file.
var (
	Define         = script(clock + describe + define)
	Remove         = script(clock + remove)
	Offer          = script(clock + secret + offer)
	Accept         = script(clock + secret + accept)
	Reject         = script(clock + secret + reject)
	Release        = script(clock + find + release)
	Recall         = script(clock + recall)
	Recover        = script(clock + recovery)
	ReadService    = script(clock + describe + readService)
	ReadOffer      = script(clock + secret + readOffer)
	ReadAllocation = script(find + readAllocation)
)
