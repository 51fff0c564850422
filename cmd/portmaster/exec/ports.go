package exec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"portmaster/client"
)

// port is what an argument SERVICE[=ALIAS] asks for, and what the command gets for it.
type port struct {
	service, alias string
	allocation     client.Allocation
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// readArgs splits the arguments into services and the command: at --, or behind the first.
func readArgs(args []string) (ports []port, command []string, err error) {
	services := args[:min(len(args), 1)]
	command = args[len(services):]
	if at := slices.Index(args, "--"); at >= 0 {
		services, command = args[:at], args[at+1:]
	}
	if len(services) == 0 || len(command) == 0 {
		return nil, nil, errors.New("a service and a command are needed")
	}
	for _, argument := range services {
		service, alias, given := strings.Cut(argument, "=")
		if !given {
			alias = defaultAlias(service)
		}
		if service == "" || alias == "" || strings.Trim(alias, letters+"0123456789_") != "" {
			return nil, nil, fmt.Errorf("%q is not SERVICE or SERVICE=ALIAS, with an alias of letters, digits and _", argument)
		}
		if slices.ContainsFunc(ports, func(p port) bool { return p.alias == alias }) {
			return nil, nil, fmt.Errorf("two ports would be PORT_%s; add =ALIAS to one of the services", alias)
		}
		ports = append(ports, port{service: service, alias: alias})
	}
	return ports, command, nil
}

// defaultAlias is a service's name as it can stand in the name of a variable.
func defaultAlias(service string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(service))
}

// environment returns what the command finds in its environment.
func environment(ports []port) (env []string) {
	add := func(name, value string) { env = append(env, name+"="+value) }
	first := ports[0].allocation
	add("PORT", strconv.Itoa(first.Port))
	add("PORTMASTER_NAME", first.Name)
	add("PORTMASTER_FENCE", strconv.FormatInt(first.Fence, 10))
	for _, p := range ports {
		add("PORT_"+p.alias, strconv.Itoa(p.allocation.Port))
	}
	return env
}

// fillIn replaces {PORT} and {PORT_ALIAS} in the arguments of the command. Other braces stay.
func fillIn(command []string, ports []port) []string {
	pairs := []string{"{PORT}", strconv.Itoa(ports[0].allocation.Port)}
	for _, p := range ports {
		pairs = append(pairs, "{PORT_"+p.alias+"}", strconv.Itoa(p.allocation.Port))
	}
	filled, replacer := slices.Clone(command), strings.NewReplacer(pairs...)
	for i := range filled[1:] {
		filled[i+1] = replacer.Replace(filled[i+1])
	}
	return filled
}
