package handlers

import (
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gofiber/fiber/v2"

	"portmaster/allocator"
)

// listTargets: GET /services/{service}/targets
func (s *Server) listTargets(c *fiber.Ctx) error {
	host, err := targetHost(c)
	if err != nil {
		return err
	}
	return s.sendTargets(c, host, s.allocator.AllAllocations(c.UserContext(), pool(c), param(c, "service")))
}

// listPoolTargets: GET /targets, those of the services that the caller's scope has.
func (s *Server) listPoolTargets(c *fiber.Ctx) error {
	host, err := targetHost(c)
	if err != nil {
		return err
	}
	caller, of := principalOf(c), pool(c)
	inScope := func(service string) bool { return caller.InScope(of, service) }
	return s.sendTargets(c, host, s.allocator.AllPoolAllocations(c.UserContext(), of, inScope))
}

// targetHost reads the host in the query; "" if there is none: each allocation with a label of that name says its own.
func targetHost(c *fiber.Ctx) (string, error) {
	host := strings.Clone(c.Query("host"))
	target, ok := asTarget(host)
	if host != "" && !ok {
		return "", allocator.Invalid(allocator.FieldError{Field: "host", Detail: "must be a host name or an IP address, without a port"})
	}
	return target, nil
}

// asTarget returns a host as it stands in front of a port: an IPv6 address has brackets. ok is false if it is no host.
func asTarget(host string) (target string, ok bool) {
	inside, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inside, bracketed = strings.CutSuffix(inside, "]")
	}
	switch address, err := netip.ParseAddr(inside); {
	case err == nil && address.Is6() && address.Zone() == "" && bracketed == (inside != host):
		return "[" + address.String() + "]", true
	case err == nil && address.Is4() && inside == host, isHostName(host):
		return host, true
	}
	return "", false
}

// hostName matches labels of letters, digits and hyphens. The last one is not all digits: that would be a broken IPv4 address.
var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*([A-Za-z]|[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9])$`)

func isHostName(text string) bool {
	last := text[strings.LastIndex(text, ".")+1:]
	return len(text) <= 253 && hostName.MatchString(text) && strings.Trim(last, "0123456789") != ""
}

// targetsAtOnce is how many bytes of targets are written before they are sent. If these are all, the answer has a length; else it comes in
// chunks.
const targetsAtOnce = 64 << 10

// sendTargets answers with the targets of a walk. If it fails after the first bytes, the connection is cut, so that no part passes for
// the whole: Prometheus then keeps the targets that it has.
func (s *Server) sendTargets(c *fiber.Ctx, host string, pages iter.Seq2[[]allocator.Allocation, error]) error {
	id := requestID(c)
	t := &targets{pool: pool(c), host: host, rest: []byte{'['}, failed: func(err error) {
		s.outages.Do(func() { s.log.Error("targets are cut short", slog.String("id", id), slog.Any("error", err)) })
	}}
	t.next, t.stop = iter.Pull2(pages)
	if err := t.write(); err != nil {
		t.stop()
		return err
	}
	if t.ended || !c.Request().Header.IsHTTP11() { // HTTP/1.0 has no chunks
		defer t.stop()
		body, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		return render(c, fiber.StatusOK, body)
	}
	c.Response().Header.SetContentType(fiber.MIMEApplicationJSON)
	c.Response().SetBodyStream(t, -1)
	return nil
}

// targets is the body of an answer, for Prometheus's http_sd: an array with a group for each port. It holds one page of the walk.
type targets struct {
	pool, host string
	next       func() ([]allocator.Allocation, error, bool)
	stop       func()
	failed     func(error) // told of an error of Read

	page  []allocator.Allocation // not yet written
	rest  []byte                 // not yet sent
	some  bool                   // a target was written
	ended bool
}

// Read writes more targets if all were sent that are written.
func (t *targets) Read(p []byte) (n int, err error) {
	if len(t.rest) == 0 && t.ended {
		return 0, io.EOF
	}
	if len(t.rest) == 0 {
		if err := t.write(); err != nil {
			t.failed(err)
			return 0, err
		}
	}
	n = copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// Close ends the walk. The server calls it when the answer was sent, or its receiver has left.
func (t *targets) Close() error {
	t.stop()
	return nil
}

// write writes targets up to targetsAtOnce bytes and an allocation.
func (t *targets) write() error {
	t.rest = append(make([]byte, 0, targetsAtOnce), t.rest...)
	for len(t.rest) < targetsAtOnce && !t.ended {
		if len(t.page) == 0 {
			page, err, more := t.next()
			if err != nil {
				return err
			}
			if t.page, t.ended = page, !more; t.ended {
				t.rest = append(t.rest, ']')
			}
			continue
		}
		t.rest = t.append(t.rest, t.page[0])
		t.page = t.page[1:]
	}
	return nil
}

// append appends the targets of an allocation, one for each of its ports; none if neither the query nor a label says its host. No text but
// the values of labels needs escaping.
func (t *targets) append(b []byte, a allocator.Allocation) []byte {
	labels := a.Labels.Map()
	host := t.host
	if host == "" {
		host, _ = asTarget(labels["host"])
	}
	if host == "" {
		return b
	}
	more := []byte{'"'} // behind the labels that all have
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		more = append(append(append(more, `,"__meta_portmaster_label_`...), key...), `":`...)
		more, _ = jsontext.AppendQuote(more, labels[key])
	}
	for i := range a.Count {
		b = append(append(t.appendOne(b, host, a, i), more...), `}}`...)
	}
	return b
}

// appendOne appends the target for the port that is i behind the first one, up to its last label.
func (t *targets) appendOne(b []byte, host string, a allocator.Allocation, i int) []byte {
	if t.some {
		b = append(b, ',')
	}
	t.some = true
	port := strconv.Itoa(a.Port + i)
	b = append(b, `{"targets":["`...)
	b = append(append(append(b, host...), ':'), port...)
	b = append(b, `"],"labels":{"__meta_portmaster_pool":"`...)
	b = append(b, t.pool...)
	b = append(b, `","__meta_portmaster_service":"`...)
	b = append(b, a.Service...)
	b = append(b, `","__meta_portmaster_name":"`...)
	b = append(b, a.Name...)
	if a.Owner != "" {
		b = append(b, `","__meta_portmaster_owner":"`...)
		b = append(b, a.Owner...)
	}
	b = append(b, `","__meta_portmaster_port":"`...)
	b = append(b, port...)
	b = append(b, `","__meta_portmaster_index":"`...)
	return strconv.AppendInt(b, int64(i), 10)
}
