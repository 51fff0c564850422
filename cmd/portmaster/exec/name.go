package exec

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"portmaster/client"
)

// maxName is the longest default name, in bytes: servers of before longer names take it, too.
const maxName = 64

// identity is who runs exec, and where.
type identity struct{ host, user, directory string }

func ownIdentity() identity {
	var id identity
	host, _ := os.Hostname() // what is not known is missing from the name
	id.host, _, _ = strings.Cut(host, ".")
	if u, err := user.Current(); err == nil {
		id.user = u.Username
	}
	id.directory, _ = os.Getwd()
	return id
}

// name returns an instance name of at most max bytes, such as "laptop.ann.shop.4711". If it would be longer, it lacks the
// beginning: the ends of the names of hosts and directories tell more of them apart.
func (id identity) name(pid, max int) string {
	var parts []string
	for _, part := range []string{id.host, id.user, filepath.Base(id.directory)} {
		if part = sanitize(part); part != "" {
			parts = append(parts, part)
		}
	}
	suffix := "." + strconv.Itoa(pid)
	prefix := cmp.Or(strings.Join(parts, "."), "exec")
	if cut := len(prefix) + len(suffix) - max; cut > 0 {
		prefix = cmp.Or(sanitize(prefix[cut:]), "exec")
	}
	if strings.Trim(prefix, "0123456789.") == "" { // so that it does not look like a number
		prefix = "exec"
	}
	return prefix + suffix
}

// sanitize returns a text as it can stand in a name, without what names must not begin or end with.
func sanitize(text string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if strings.ContainsRune(letters+"0123456789._-", r) {
			return r
		}
		return '-'
	}, text), "._-")
}

// preferred returns the port of a service that a holder prefers each time. It follows from the name or, if none is given, from who runs
// exec and in which directory, whatever the process id.
func preferred(s client.Service, name string, id identity, alias string) int {
	hash := fnv.New64a()
	if name != "" {
		id = identity{}
	}
	fmt.Fprintf(hash, "%q %q %q", name, id, alias)
	size := 0
	for _, r := range s.AllRanges() {
		size += r.End - r.Start + 1
	}
	at := int(hash.Sum64() % uint64(size))
	for _, r := range s.AllRanges() {
		if port := r.Start + at; port <= r.End {
			return port
		}
		at -= r.End - r.Start + 1
	}
	return s.Start
}

// randomSuffix tells names apart that are the same otherwise.
func randomSuffix() string { return "." + client.NewSecret()[:8] }
