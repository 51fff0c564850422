package cli

import (
	"strconv"
	"strings"
	"time"

	"portmaster/client"
)

// What is printed of each type.

// ports says which ports a block has.
func ports(port, count int) string {
	if count <= 1 {
		return strconv.Itoa(port)
	}
	return strconv.Itoa(port) + "-" + strconv.Itoa(port+count-1)
}

// portsOf says which ports a service has.
func portsOf(s client.Service) string {
	parts := make([]string, len(s.AllRanges()))
	for i, r := range s.AllRanges() {
		parts[i] = ports(r.Start, r.End-r.Start+1)
	}
	return strings.Join(parts, ",")
}

// given returns the variables that have a value. A shell that reads the lines would take :~ in a name for somebody's home directory.
func given(pairs ...string) (vars []string) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			value := pairs[i+1]
			if strings.Contains(value, ":~") {
				value = "'" + value + "'"
			}
			vars = append(vars, pairs[i]+"="+value)
		}
	}
	return vars
}

func exact(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

var services = kind[client.Service]{
	heads: []string{"NAME", "PORTS", "FREE", "OFFERED", "ALLOCATED", "COOLING", "WAITING", "AGE", "DESCRIPTION"},
	row: func(s client.Service) []string {
		return []string{s.Name, portsOf(s), strconv.Itoa(s.Ports.Free), strconv.Itoa(s.Ports.Offered),
			strconv.Itoa(s.Ports.Allocated), strconv.Itoa(s.Ports.Cooling), strconv.Itoa(s.Waiting), age(s.Created), s.Description}
	},
	vars: func(s client.Service) []string {
		return given("PORTMASTER_SERVICE", s.Name, "PORTMASTER_START", strconv.Itoa(s.Start), "PORTMASTER_END", strconv.Itoa(s.End),
			"PORTMASTER_FREE", strconv.Itoa(s.Ports.Free), "PORTMASTER_WAITING", strconv.Itoa(s.Waiting))
	},
	entry: func(s client.Service) []string { return given("SERVICE_"+s.Name, portsOf(s)) },
	id:    func(s client.Service) string { return s.Name },
}

var offers = kind[client.Offer]{
	heads: []string{"NAME", "PORT", "EXPIRES", "AGE", "SECRET"},
	row: func(o client.Offer) []string {
		return []string{o.Name, ports(o.Port, o.Count), until(o.Expires), age(o.Created), o.Secret}
	},
	vars: func(o client.Offer) []string {
		return given("PORT", strconv.Itoa(o.Port), "PORTMASTER_SERVICE", o.Service, "PORTMASTER_NAME", o.Name,
			"PORTMASTER_COUNT", strconv.Itoa(o.Count), "PORTMASTER_EXPIRES", exact(o.Expires), "PORTMASTER_SECRET", o.Secret)
	},
	entry: func(o client.Offer) []string {
		return given("PORT_"+variable(o.Name), strconv.Itoa(o.Port), "SECRET_"+variable(o.Name), o.Secret)
	},
	id: func(o client.Offer) string { return strconv.Itoa(o.Port) },
}

// offered is how an offer is printed that was just made: -q prints what accepts it.
func offered() kind[client.Offer] {
	k := offers
	k.id = func(o client.Offer) string { return o.Secret }
	return k
}

var allocations = kind[client.Allocation]{
	heads: []string{"NAME", "PORT", "EXPIRES", "AGE", "FENCE", "SECRET"},
	row: func(a client.Allocation) []string {
		return []string{a.Name, ports(a.Port, a.Count), until(a.Expires), age(a.Created), strconv.FormatInt(a.Fence, 10), a.Secret}
	},
	vars: func(a client.Allocation) []string {
		return given("PORT", strconv.Itoa(a.Port), "PORTMASTER_SERVICE", a.Service, "PORTMASTER_NAME", a.Name,
			"PORTMASTER_COUNT", strconv.Itoa(a.Count), "PORTMASTER_FENCE", strconv.FormatInt(a.Fence, 10),
			"PORTMASTER_EXPIRES", exact(a.Expires), "PORTMASTER_SECRET", a.Secret)
	},
	entry: func(a client.Allocation) []string {
		return given("PORT_"+variable(a.Name), strconv.Itoa(a.Port), "SECRET_"+variable(a.Name), a.Secret)
	},
	id: func(a client.Allocation) string { return strconv.Itoa(a.Port) },
}

var pools = kind[client.Pool]{
	heads: []string{"NAME", "SERVICES"},
	row:   func(p client.Pool) []string { return []string{p.Name, servicesOf(p)} },
	entry: func(p client.Pool) []string { return given("POOL_"+p.Name, servicesOf(p)) },
	id:    func(p client.Pool) string { return p.Name },
}

// servicesOf says how many services a pool has; "-" is not known.
func servicesOf(p client.Pool) string {
	if p.Services == nil {
		return "-"
	}
	return strconv.Itoa(*p.Services)
}

// listed is how items are printed that have no secret, which is the last column.
func listed[T any](k kind[T]) kind[T] {
	k.heads = k.heads[:len(k.heads)-1]
	return k
}
