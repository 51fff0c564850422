// Package mcp lets coding agents claim ports over the Model Context Protocol. A session keeps the leases of the ports that it claimed,
// and releases them when it ends.
package mcp

import (
	"context"
	"errors"
	"fmt"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"portmaster/client"
)

const instructions = "Before you start a server, claim a port for it, and release the port when the server has stopped. Other agents on this " +
	"network claim from the same services, so never use a port that you did not claim. The name says who you are and what the port is " +
	"for, such as the worktree and the server: feature-x-web. The same name gets the same port back while this session lives."

// NewServer returns the MCP server of a session.
func NewServer(s *Session, version string) *sdk.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: "portmaster", Version: version}, &sdk.ServerOptions{Instructions: instructions})
	sdk.AddTool(server, &sdk.Tool{
		Name:        "claim_port",
		Description: "Claim a free network port of a service. Nobody else gets it until it is released or this session ends.",
	}, s.claimPort)
	sdk.AddTool(server, &sdk.Tool{
		Name:        "release_port",
		Description: "Release a port that this session claimed, after its server has stopped.",
	}, s.releasePort)
	sdk.AddTool(server, &sdk.Tool{
		Name:        "list_ports",
		Description: "List who has which ports of a service, or of all services, and how many are free.",
		Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true},
	}, s.listPorts)
	sdk.AddTool(server, &sdk.Tool{
		Name:        "who_has",
		Description: "Say who has a port of a service, or which port a name has.",
		Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true},
	}, s.whoHas)
	return server
}

type claimArgs struct {
	Service string `json:"service" jsonschema:"the service, a named range of ports; list_ports names those that there are"`
	Name    string `json:"name" jsonschema:"who claims and for what, such as feature-x-web: 1 to 128 of A-Z a-z 0-9 . _ - / : @ + ~ ="`
	Prefer  int    `json:"prefer,omitempty" jsonschema:"a port that you would like best; you get another one if it is not free"`
}

// held is a port and who has it.
type held struct {
	Service string `json:"service"`
	Name    string `json:"name"`
	Port    int    `json:"port"`
	Count   int    `json:"count,omitempty" jsonschema:"how many consecutive ports, if more than one"`
	Mine    bool   `json:"mine" jsonschema:"whether this session claimed it and keeps it"`
	Lost    int    `json:"lost,omitempty" jsonschema:"a port that this session had for the name before, and lost: stop the server that uses it"`
}

func (s *Session) heldOf(a client.Allocation) held {
	h := held{Service: a.Service, Name: a.Name, Port: a.Port, Mine: s.has(a)}
	if a.Count > 1 {
		h.Count = a.Count
	}
	return h
}

func (s *Session) claimPort(ctx context.Context, _ *sdk.CallToolRequest, args claimArgs) (*sdk.CallToolResult, held, error) {
	a, lost, err := s.claim(ctx, args.Service, args.Name, args.Prefer)
	if err != nil {
		return nil, held{}, advise(err, args.Service)
	}
	got := s.heldOf(a)
	got.Lost = lost
	return nil, got, nil
}

type releaseArgs struct {
	Service string `json:"service" jsonschema:"the service of the port"`
	Name    string `json:"name" jsonschema:"the name that it was claimed for"`
}

type released struct {
	Released int `json:"released" jsonschema:"the port that is free for others now"`
}

func (s *Session) releasePort(ctx context.Context, _ *sdk.CallToolRequest, args releaseArgs) (*sdk.CallToolResult, released, error) {
	port, err := s.release(ctx, args.Service, args.Name)
	if err != nil {
		return nil, released{}, advise(err, args.Service)
	}
	return nil, released{port}, nil
}

type listArgs struct {
	Service string `json:"service,omitempty" jsonschema:"list this service only"`
}

type serviceList struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitempty"`
	Start       int            `json:"start"`
	End         int            `json:"end"`
	Ranges      []client.Range `json:"ranges,omitempty" jsonschema:"if the service has several"`
	Free        int            `json:"free"`
	Ports       []held         `json:"ports"`
	More        bool           `json:"more,omitempty" jsonschema:"more ports are held than are listed here"`
}

type portList struct {
	Services []serviceList `json:"services"`
}

// mostListed bounds the ports that list_ports tells of a service: an agent reads them all.
const mostListed = 200

func (s *Session) listPorts(ctx context.Context, _ *sdk.CallToolRequest, args listArgs) (*sdk.CallToolResult, portList, error) {
	list := portList{Services: []serviceList{}}
	add := func(of client.Service) error {
		one := serviceList{of.Name, of.Description, of.Start, of.End, of.Ranges, of.Ports.Free, []held{}, false}
		for a, err := range s.client.Allocations(ctx, of.Name) {
			if err != nil {
				return err
			}
			if one.More = len(one.Ports) == mostListed; one.More {
				break
			}
			one.Ports = append(one.Ports, s.heldOf(a))
		}
		list.Services = append(list.Services, one)
		return nil
	}
	if args.Service != "" {
		of, err := s.client.Service(ctx, args.Service)
		if err == nil {
			err = add(of)
		}
		return nil, list, advise(err, args.Service)
	}
	for of, err := range s.client.Services(ctx) {
		if err == nil {
			err = add(of)
		}
		if err != nil {
			return nil, list, advise(err, "")
		}
	}
	return nil, list, nil
}

type whoArgs struct {
	Service string `json:"service" jsonschema:"the service to look in"`
	Port    int    `json:"port,omitempty" jsonschema:"a port; give either this or a name"`
	Name    string `json:"name,omitempty" jsonschema:"a name; give either this or a port"`
}

func (s *Session) whoHas(ctx context.Context, _ *sdk.CallToolRequest, args whoArgs) (*sdk.CallToolResult, held, error) {
	if (args.Port == 0) == (args.Name == "") {
		return nil, held{}, errors.New("give either a port or a name")
	}
	holder, find := args.Name, s.client.AllocationByName
	if holder == "" {
		holder, find = fmt.Sprint(args.Port), s.client.Allocation
	}
	a, err := find(ctx, args.Service, holder)
	if errors.Is(err, client.ErrPortNotFound) {
		return nil, held{}, fmt.Errorf("nobody has %s of %s; claim_port with it as prefer may get it", holder, args.Service)
	}
	if err != nil {
		return nil, held{}, advise(err, args.Service)
	}
	return nil, s.heldOf(a), nil
}

// advice is what an agent does next.
var advice = []struct {
	err  error
	what string
}{
	{client.ErrServiceNotFound, "call list_ports without a service to see which there are"},
	{client.ErrNameTaken, "another session, or an offer, has this name: choose another one, or ask who_has it"},
	{client.ErrExhausted, "release ports that you no longer need, or try again in a minute"},
	{client.ErrTooManyWaiting, "try again in a minute"},
	{client.ErrInvalid, "correct the arguments and call again"},
	{client.ErrUnavailable, "nothing was done: try again in a few seconds, and tell the user if it lasts"},
	{client.ErrOutcomeUnknown, "call again with the same name, and tell the user if it lasts"},
}

// advise adds to an error what to do next.
func advise(err error, service string) error {
	for _, a := range advice {
		if errors.Is(err, a.err) {
			return fmt.Errorf("%w. What to do next: %s", err, a.what)
		}
	}
	if err != nil && service != "" {
		return fmt.Errorf("service %s: %w", service, err)
	}
	return err
}
