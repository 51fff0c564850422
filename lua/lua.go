// Package lua holds the scripts that decide who gets a port. Each script is a file, grouped by what it acts on: ports, services,
// the waitlist, the epoch. The head of each file is its contract.
//
// The functions that scripts share are in parts/. A line "-- include ports/pick: put_back" at the head of a script or part is
// replaced by the function put_back of parts/ports/pick.lua, after the functions that it calls; each is included once.
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

//go:embed */*.lua parts/*/*.lua
var files embed.FS

// Script is a script as it is sent to Redis.
type Script struct {
	Name   string // that of its file, such as ports/offer
	Source string
	Hash   string // the SHA-1 of Source, by which Redis knows a loaded script

	// The names of its keys, in the order of KEYS.
	Keys  []string
	Each  []string // the names of the keys that follow for each request, or service
	Owned bool     // the key owned follows last if the call is of an owner
}

// The scripts. The head of each file has its KEYS, ARGV, answers and errors.
var (
	Offer          = script("ports/offer")
	OfferAny       = script("ports/offer_any")
	OfferMany      = script("ports/offer_many")
	Claim          = script("ports/claim")
	ClaimAny       = script("ports/claim_any")
	ClaimMany      = script("ports/claim_many")
	Accept         = script("ports/accept")
	AcceptPlain    = script("ports/accept_plain")
	AcceptMany     = script("ports/accept_many")
	Reject         = script("ports/reject")
	RejectMany     = script("ports/reject_many")
	Renew          = script("ports/renew")
	RenewMany      = script("ports/renew_many")
	ChangeLabels   = script("ports/change_labels")
	Release        = script("ports/release")
	ReleasePlain   = script("ports/release_plain")
	ReleaseMany    = script("ports/release_many")
	ReadOffer      = script("ports/read_offer")
	ReadAllocation = script("ports/read_allocation")
	CountHeld      = script("ports/count_held")

	Define       = script("services/define")
	Remove       = script("services/remove")
	Settle       = script("services/settle")
	ReadService  = script("services/read_service")
	ReadServices = script("services/read_services")
	ReadMap      = script("services/read_map")
	ReadFree     = script("services/read_free")
	ListServices = script("services/list_services")
	ListPool     = script("services/list_pool")
	UnlistPools  = script("services/unlist_pools")
	CheckPorts   = script("services/check_ports")
	CheckOffers  = script("services/check_offers")
	CheckEntries = script("services/check_entries")
	CheckOwners  = script("services/check_owners")
	TryHistory   = script("services/try_history")

	Heartbeat     = script("waitlist/heartbeat")
	CheckWaitlist = script("waitlist/check_waitlist")
	LeaveWaitlist = script("waitlist/leave_waitlist")
	ReadWaitlist  = script("waitlist/read_waitlist")

	CheckEpoch  = script("epoch/check_epoch")
	Recover     = script("epoch/recover")
	RaiseFence  = script("epoch/raise_fence")
	ExtendTrail = script("epoch/extend_trail")
	Convert     = script("epoch/convert")
	MendClock   = script("epoch/mend_clock")
)

// script returns the script of a file, with the functions that it includes.
func script(file string) *Script {
	source := include(textOf(file), map[string]bool{})
	sum := sha1.Sum([]byte(source))
	s := &Script{Name: file, Source: source, Hash: hex.EncodeToString(sum[:])}
	s.Keys, s.Each, s.Owned = keysOf(source)
	all = append(all, s)
	return s
}

var all []*Script

// All returns all scripts.
func All() []*Script { return all }

func textOf(file string) string {
	text, err := files.ReadFile(file + ".lua")
	if err != nil {
		panic(err) // the file is not embedded
	}
	return string(text)
}

var (
	keysLines = regexp.MustCompile(`(?s)\n-- KEYS   (.*?)\n-- ARGV`)
	ofEach    = regexp.MustCompile(`\bof each [^:]*:`)
	ofOwner   = regexp.MustCompile(`\bof an\s(?:--\s*)?owner:\s(?:--\s*)?owned ZSET\b`)
	keyName   = regexp.MustCompile(`(\w+) (?:HASH|ZSET|STRING|SET|STREAM)\b`)
)

// keysOf reads the names of the keys in the header of a script.
func keysOf(source string) (keys, each []string, owned bool) {
	text := ""
	if lines := keysLines.FindStringSubmatch(source); lines != nil {
		text = lines[1]
	}
	if at := ofOwner.FindStringIndex(text); at != nil {
		text, owned = text[:at[0]], true
	}
	if at := ofEach.FindStringIndex(text); at != nil {
		text, each = text[:at[0]], names(text[at[1]:])
	}
	return names(text), each, owned
}

func names(keys string) (found []string) {
	for _, m := range keyName.FindAllStringSubmatch(keys, -1) {
		found = append(found, m[1])
	}
	return found
}

var (
	includeLine = regexp.MustCompile(`(?m)^( *)-- include ([\w/]+): (\w+(?:, \w+)*)\n`)
	function    = regexp.MustCompile(`(?ms)^(?:--[^\n]*\n)*local function (\w+)\(.*?^end\n`)
	comment     = regexp.MustCompile(`--[^\n]*`)
	word        = regexp.MustCompile(`\w+`)
)

// include returns a text with functions in place of its include lines. has names the functions that the text can call already:
// they are not included again. The functions of an include line inside a function are known only there.
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
	functions map[string]string // by name: the text of each function
	included  map[string]*part  // by name: the part that has each function that this one includes
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
				p.included[each] = partOf(m[2])
			}
		}
	}
	return p
}

// add writes a function after those that it calls, unless the script has it.
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
		if other := p.included[w]; other != nil {
			other.add(b, w, has)
		} else if p.functions[w] != "" {
			p.add(b, w, has)
		}
	}
	b.WriteString(include(text, has))
}
