package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	args := []string{"token", "ci", "--role", "client", "--scope", "default/ci-*,games/*"}
	options := []string{"--held", "200", "--rate", "50", "--expires", "2027-06-01"}
	shown := map[string]bool{}
	for want, args := range map[string][]string{
		"ci client default/ci-*,games/* - sha256:":                                   args,
		"ci client default/ci-*,games/* held=200,rate=50,expires=2027-06-01 sha256:": append(args, options...),
	} {
		code, stdout, stderr := run(t, args)
		token, line, _ := strings.Cut(stdout, "\n")
		if code != 0 || stderr != "" || !regexp.MustCompile(`^pm_[A-Za-z0-9_-]{43}$`).MatchString(token) || shown[token] {
			t.Errorf("exit code %d: %q, %q", code, stdout, stderr)
		}
		if hash, found := strings.CutPrefix(line, want); !found || !regexp.MustCompile(`^[0-9a-f]{64}\n$`).MatchString(hash) {
			t.Errorf("the line is %q, want %s...", line, want)
		}
		shown[token] = true
	}
}

func TestTokenUsage(t *testing.T) {
	good := []string{"token", "ci", "--role", "client", "--scope", "default/*"}
	for says, args := range map[string][]string{
		"name must be":     {"token", "c/i", "--role", "client", "--scope", "default/*"},
		"role must be":     {"token", "ci", "--role", "admin", "--scope", "default/*"},
		"scope must be":    {"token", "ci", "--role", "client", "--scope", "default"},
		"held must be":     append(good[:6:6], "--held", "0"),
		"rate must be":     append(good[:6:6], "--rate", "-1"),
		"expires must be":  append(good[:6:6], "--expires", "soon"),
		"required flag(s)": {"token", "ci", "--role", "client"},
		"accepts 1 arg":    {"token"},
	} {
		code, stdout, stderr := run(t, args)
		if code != 2 || stdout != "" || !strings.Contains(stderr, says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}
