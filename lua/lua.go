// Package lua holds the scripts that decide who gets a port: one file per act, each headed by its contract.
//
// What several acts do the same way is in parts/. A line of an act, or of a part, puts one in its place: "-- include clock".
// A part finds the names of the act that stands around it.
package lua

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"regexp"
)

//go:embed *.lua parts/*.lua
var files embed.FS

// Script is one act, as it is sent to Redis.
type Script struct {
	Source string
	Hash   string // the SHA-1 of Source, by which Redis knows a script that was loaded
}

// The scripts. KEYS, ARGV, answers and errors stand at the head of each one's file.
var (
	Define         = script("define")
	Remove         = script("remove")
	OfferAny       = script("offer_any")
	Offer          = script("offer")
	Claim          = script("claim")
	Accept         = script("accept")
	Reject         = script("reject")
	Renew          = script("renew")
	Release        = script("release")
	Settle         = script("settle")
	Beat           = script("beat")
	Line           = script("line")
	Leave          = script("leave")
	Recall         = script("recall")
	Raise          = script("raise")
	Convert        = script("convert")
	Recover        = script("recover")
	Copied         = script("copied")
	MendClock      = script("mend_clock")
	ReadService    = script("read_service")
	ReadServices   = script("read_services")
	ListServices   = script("list_services")
	ListPool       = script("list_pool")
	UnlistPools    = script("unlist_pools")
	ReadOffer      = script("read_offer")
	ReadAllocation = script("read_allocation")
)

var include = regexp.MustCompile(`(?m)^ *-- include (\w+)$`)

// script returns the act of a file, with the parts that it includes.
func script(act string) *Script {
	source := whole(act)
	sum := sha1.Sum([]byte(source))
	return &Script{source, hex.EncodeToString(sum[:])}
}

func whole(name string) string {
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic(err) // the file is to be part of this program
	}
	return include.ReplaceAllStringFunc(string(text), func(line string) string {
		return whole("parts/" + include.FindStringSubmatch(line)[1])
	})
}
