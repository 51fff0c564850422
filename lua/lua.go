// Package lua holds the scripts that decide who gets a port: one file per act, each headed by its contract.
//
// What several acts do the same way are the functions of parts/. "-- include waitlist: join, leave" in an act, or at the head of a
// part, stands for these functions of parts/waitlist.lua. They are put in its place, each behind those that it calls, and once.
package lua

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

//go:embed *.lua parts/*.lua
var files embed.FS

// Script is one act, as it is sent to Redis.
type Script struct {
	Source string
	Hash   string // the SHA-1 of Source, by which Redis knows a script that was loaded

	// The names of its keys, in the order of KEYS.
	Keys []string
	Each []string // those of each request, or service, behind the others
}

// The scripts. KEYS, ARGV, answers and errors stand at the head of each one's file.
var (
	Define         = script("define")
	Remove         = script("remove")
	OfferAny       = script("offer_any")
	Offer          = script("offer")
	ClaimAny       = script("claim_any")
	Claim          = script("claim")
	AcceptPlain    = script("accept_plain")
	Accept         = script("accept")
	Reject         = script("reject")
	Renew          = script("renew")
	ReleasePlain   = script("release_plain")
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
	CheckPorts     = script("check_ports")
	CheckOffers    = script("check_offers")
	CheckEntries   = script("check_entries")
	ReadService    = script("read_service")
	ReadServices   = script("read_services")
	ListServices   = script("list_services")
	ListPool       = script("list_pool")
	UnlistPools    = script("unlist_pools")
	ReadOffer      = script("read_offer")
	ReadAllocation = script("read_allocation")
)

// script returns the act of a file, with the functions that it includes.
func script(act string) *Script {
	source := include(textOf(act), map[string]bool{})
	sum := sha1.Sum([]byte(source))
	s := &Script{Source: source, Hash: hex.EncodeToString(sum[:])}
	s.Keys, s.Each = keysOf(source)
	all = append(all, s)
	return s
}

var all []*Script

// All returns all scripts.
func All() []*Script { return all }

func textOf(file string) string {
	text, err := files.ReadFile(file + ".lua")
	if err != nil {
		panic(err) // the file is to be part of this program
	}
	return string(text)
}

var (
	keysLines = regexp.MustCompile(`(?s)\n-- KEYS   (.*?)\n-- ARGV`)
	ofEach    = regexp.MustCompile(`\bof each [^:]*:`)
	keyName   = regexp.MustCompile(`(\w+) (?:HASH|ZSET|STRING|SET)\b`)
)

// keysOf reads the names of the keys in the header of an act.
func keysOf(source string) (keys, each []string) {
	text := ""
	if lines := keysLines.FindStringSubmatch(source); lines != nil {
		text = lines[1]
	}
	if at := ofEach.FindStringIndex(text); at != nil {
		text, each = text[:at[0]], names(text[at[1]:])
	}
	return names(text), each
}

func names(keys string) (found []string) {
	for _, m := range keyName.FindAllStringSubmatch(keys, -1) {
		found = append(found, m[1])
	}
	return found
}

var (
	includeLine = regexp.MustCompile(`(?m)^( *)-- include (\w+): (\w+(?:, \w+)*)\n`)
	function    = regexp.MustCompile(`(?ms)^(?:--[^\n]*\n)*local function (\w+)\(.*?^end\n`)
	comment     = regexp.MustCompile(`--[^\n]*`)
	word        = regexp.MustCompile(`\w+`)
)

// include returns a text with functions in place of its include lines, but for those that it has already. Those that are
// included inside a function are seen nowhere else.
func include(text string, has map[string]bool) string {
	return includeLine.ReplaceAllStringFunc(text, func(line string) string {
		m := includeLine.FindStringSubmatch(line)
		scope := has
		if m[1] != "" {
			scope = maps.Clone(has)
		}
		var b strings.Builder
		for name := range strings.SplitSeq(m[3], ", ") {
			partOf(m[2]).add(&b, name, scope)
		}
		return b.String()
	})
}

// part is a file of functions.
type part struct {
	name      string
	functions map[string]string // the text of each, by its name
	others    map[string]*part  // where the functions are from that it includes, by their names
}

var parts = map[string]*part{}

func partOf(name string) *part {
	if p := parts[name]; p != nil {
		return p
	}
	p := &part{name, map[string]string{}, map[string]*part{}}
	parts[name] = p
	text := textOf("parts/" + name)
	for _, m := range function.FindAllStringSubmatch(text, -1) {
		p.functions[m[1]] = m[0]
	}
	for _, m := range includeLine.FindAllStringSubmatch(text, -1) {
		for each := range strings.SplitSeq(m[3], ", ") {
			if m[1] == "" {
				p.others[each] = partOf(m[2])
			}
		}
	}
	return p
}

// add writes a function behind those that it calls, unless the script has it.
func (p *part) add(b *strings.Builder, name string, has map[string]bool) {
	text, known := p.functions[name]
	if !known {
		panic(fmt.Sprintf("parts/%s.lua has no function %s", p.name, name))
	}
	if has[name] {
		return
	}
	has[name] = true
	for _, w := range word.FindAllString(comment.ReplaceAllString(text, ""), -1) {
		if other := p.others[w]; other != nil {
			other.add(b, w, has)
		} else if p.functions[w] != "" {
			p.add(b, w, has)
		}
	}
	b.WriteString(include(text, has))
}
