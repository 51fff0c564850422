package storetest

import (
	"net/url"
	"strings"
	"testing"
)

// NothingRefused sees that Redis refused no user anything.
func (s Store) NothingRefused(t testing.TB) {
	t.Helper()
	refusals, err := s.Admin.ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refusals {
		t.Errorf("Redis refused to %s: %s %s (%s)", r.Username, r.Reason, r.Object, r.Context)
	}
}

// NoPasswordIn sees that a text does not show the password, not even as it stands in a URL.
func NoPasswordIn(t testing.TB, text string) {
	t.Helper()
	for _, password := range []string{Password, url.QueryEscape(Password), url.PathEscape(Password)} {
		if strings.Contains(text, password) {
			t.Errorf("the password is shown:\n%s", text)
		}
	}
}
