package client_test

import (
	"errors"
	"testing"
	"time"

	"portmaster/client"
)

// Every call finds an allocation by its name, whatever characters it has, and if it is digits only, by which others have a port.
func TestInstanceNames(t *testing.T) {
	t.Parallel()
	c := ownServer(t, client.Options{})
	define(t, c, "ci", 20000, 20009)
	ctx, same := t.Context(), "value"
	_, err := c.Claim(ctx, "ci", client.Request{Name: "other", Port: 20001}, client.Wait{})
	must(t, err)
	for _, name := range []string{"feature/login~1:a@b+c=d", "a/../b", "a/renew", "20001", "7"} {
		claimed, err := c.Claim(ctx, "ci", client.Request{Name: name, Lease: time.Minute}, client.Wait{})
		must(t, err)
		found, err := c.AllocationByName(ctx, "ci", name)
		if must(t, err); found.Port != claimed.Port || found.Name != name {
			t.Errorf("%s is found as %+v", name, found)
		}
		named := client.Allocation{Service: "ci", Name: name, Secret: claimed.Secret}
		for range 2 {
			renewed, err := c.Renew(ctx, named, 2*time.Minute)
			if must(t, err); renewed.Fence != claimed.Fence {
				t.Errorf("%s: renewed is %+v", name, renewed)
			}
			labelled, err := c.ChangeLabels(ctx, named, map[string]*string{"key": &same})
			if must(t, err); labelled.Fence != claimed.Fence {
				t.Errorf("%s: labelled is %+v", name, labelled)
			}
			named.Port = claimed.Port
		}
		must(t, c.Release(ctx, client.Allocation{Service: "ci", Name: name}))
		if err := c.Release(ctx, client.Allocation{Service: "ci", Name: name}); !errors.Is(err, client.ErrPortNotFound) {
			t.Errorf("%s: released again: %v", name, err)
		}
		if _, err := c.AllocationByName(ctx, "ci", name); !errors.Is(err, client.ErrPortNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	left, err := c.Allocation(ctx, "ci", "20001")
	if must(t, err); left.Name != "other" {
		t.Errorf("20001 is %+v", left)
	}
	if _, err := c.AllocationByName(ctx, "ci", "a b"); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
}
