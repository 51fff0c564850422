package transfer

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"portmaster/client"
)

// Import does what a plan says: it defines the services, and claims each port by its number, in lists of up to 100. The secrets of the
// claims are in the file at secretsPath before they are made. A name or port that somebody has taken since the plan was made is one
// more fault of the plan. A service that it defines gets its default and longest lease when its allocations have theirs, which may be
// longer, or none. It may be repeated. progress, if not nil, is told after each list how many of the allocations are done.
func (p *Plan) Import(ctx context.Context, c *client.Client, secretsPath string, progress func(done, total int)) error {
	for _, line := range p.Define {
		d := line.Service.definition()
		d.DefaultLease, d.MaxLease = 0, 0
		if _, err := c.Pool(line.Pool).Define(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", line.of(), err)
		}
	}
	known, err := readSecrets(secretsPath)
	if err != nil {
		return err
	}
	done, total := 0, len(p.Claim) // those that turn out to be taken leave p.Claim
	claim := func(lines []Line) error {
		for _, list := range lists(lines) {
			if err := p.claim(ctx, c, known, list); err != nil {
				return fmt.Errorf("after %d of %d allocations: %w", done, total, err)
			}
			if done += len(list); progress != nil {
				progress(done, total)
			}
		}
		return nil
	}
	if err := claim(p.inRanges()); err != nil {
		return err
	}
	for _, d := range p.drains {
		if err := p.claimDraining(ctx, c, d, claim); err != nil {
			return fmt.Errorf("%s/%s: %w", d.key.pool, d.key.service, err)
		}
	}
	for _, line := range p.Define {
		d := line.Service.definition()
		if d.DefaultLease == 0 && d.MaxLease == 0 {
			continue
		}
		if _, err := c.Pool(line.Pool).Define(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", line.of(), err)
		}
	}
	return nil
}

// definition returns what defines the service on a server.
func (s Service) definition() client.Definition {
	d := client.Definition{
		Name: s.Name, Description: s.Description, Start: s.Start, End: s.End, Cooldown: duration(s.Cooldown),
		DefaultLease: duration(s.DefaultLease), MaxLease: duration(s.MaxLease), Pick: s.Pick, Drain: s.Draining,
	}
	if len(s.Ranges) > 0 {
		d.Start, d.End, d.Ranges = 0, 0, s.Ranges
	}
	return d
}

// duration returns a number of seconds, in whole milliseconds.
func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
}

// lists cuts allocations into those that one call may claim: of one service, with at most 100 names and 256 ports.
func lists(lines []Line) (all [][]Line) {
	ports := 0
	for i, line := range lines {
		a := line.Allocation
		if last := len(all) - 1; i > 0 && len(all[last]) < maxClaims && ports+a.Count <= maxPorts &&
			lines[i-1].Pool == line.Pool && lines[i-1].Allocation.Service == a.Service {
			all[last] = append(all[last], line)
			ports += a.Count
			continue
		}
		all = append(all, []Line{line})
		ports = a.Count
	}
	return all
}

// claim claims a list. Those that somebody has taken meanwhile are left out, and told.
func (p *Plan) claim(ctx context.Context, c *client.Client, known *secrets, list []Line) error {
	for len(list) > 0 {
		all, err := known.of(list)
		if err != nil {
			return err
		}
		requests := make([]client.Request, len(list))
		for i, line := range list {
			a := line.Allocation
			requests[i] = client.Request{Name: a.Name, Port: a.Port, Count: a.Count, Secret: all[i], Labels: a.Labels}
			if !a.Expires.IsZero() {
				requests[i].Lease = max(remaining(*a), minLease)
			}
		}
		_, err = c.Pool(list[0].Pool).ClaimAll(ctx, list[0].Allocation.Service, requests, client.Wait{})
		if err == nil {
			return nil
		}
		isTooMuch := errors.Is(err, client.ErrInvalid) || errors.Is(err, client.ErrTooLarge)
		if isTooMuch && len(list) > 1 { // the server may allow fewer ports in one call, and labels are long
			return errors.Join(p.claim(ctx, c, known, list[:len(list)/2]), p.claim(ctx, c, known, list[len(list)/2:]))
		}
		left := p.leaveOut(list, err)
		if len(left) == len(list) {
			return fmt.Errorf("%s: %w", list[0].of(), err)
		}
		list = left
	}
	return nil
}

var fieldOfList = regexp.MustCompile(`^\[(\d+)\]\.`)

// leaveOut returns the lines that were not at fault when a list was refused because a name or a port is taken.
func (p *Plan) leaveOut(list []Line, err error) (left []Line) {
	refusal, ok := errors.AsType[*client.Error](err)
	if !ok || !errors.Is(err, client.ErrNameTaken) && !errors.Is(err, client.ErrPortTaken) {
		return list
	}
	faults := map[int]string{}
	if len(list) == 1 {
		faults[0] = refusal.Detail
	}
	for _, field := range refusal.Fields {
		if m := fieldOfList.FindStringSubmatch(field.Field); m != nil {
			i, _ := strconv.Atoi(m[1])
			faults[i] = field.Detail
		}
	}
	for i, line := range list {
		if detail, at := faults[i]; at {
			p.leave(line, "%s", detail)
		} else {
			left = append(left, line)
		}
	}
	return left
}
