package identity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync/atomic"

	"portmaster/handlers/follow"
)

const maxFile = 4 << 20 // bytes

// tokensFile holds the tokens of a file, which it follows.
type tokensFile struct {
	path   string
	log    *slog.Logger
	tokens atomic.Pointer[map[digest]*Principal] // nil without a file
	broken atomic.Bool
}

// find returns the principal of a token, or nil.
func (f *tokensFile) find(sum digest) *Principal {
	if tokens := f.tokens.Load(); tokens != nil {
		return (*tokens)[sum]
	}
	return nil
}

// start reads the file, which must be without a fault this once, and follows it until ctx ends.
func (f *tokensFile) start(ctx context.Context) error {
	content, err := readFile(f.path)
	if err == nil {
		err = f.use(content)
	}
	if err != nil {
		return fmt.Errorf("tokens file %s: %w", f.path, err)
	}
	go follow.Changes(ctx, version(content, nil), f.look)
	return nil
}

// look reads the file, and returns what to do if it has changed.
func (f *tokensFile) look() (now follow.Version, use func()) {
	content, err := readFile(f.path)
	return version(content, err), func() {
		if err == nil {
			err = f.use(content)
		}
		f.broken.Store(err != nil)
		if err != nil {
			f.log.Error("the tokens file is broken; the tokens that were read before stay in use", "file", f.path, "error", err)
		} else {
			f.log.Info("the tokens file was read", "file", f.path, "tokens", len(*f.tokens.Load()))
		}
	}
}

func (f *tokensFile) use(content []byte) error {
	tokens, err := parseTokens(string(content))
	if err == nil {
		f.tokens.Store(&tokens)
	}
	return err
}

// version is of what was read, or of why nothing was.
func version(content []byte, err error) follow.Version {
	if err != nil {
		content = []byte(err.Error())
	}
	return sha256.Sum256(content)
}

func readFile(name string) ([]byte, error) { return follow.Read(name, maxFile) }
