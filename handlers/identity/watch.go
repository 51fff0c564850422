package identity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

const (
	pollPeriod = 500 * time.Millisecond // a change is in use after two polls
	maxFile    = 4 << 20                // bytes
)

// tokensFile holds the tokens of a file, which it reads again and again: its content is compared, so a swapped symlink, an
// equal time of change and an equal size make no difference.
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
	go f.follow(ctx, version(content, nil))
	return nil
}

// follow uses each change of the file that two polls in a row have seen; before, it may be half written.
func (f *tokensFile) follow(ctx context.Context, used digest) {
	ticker := time.NewTicker(pollPeriod)
	defer ticker.Stop()
	last := used
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		content, err := readFile(f.path)
		now := version(content, err)
		if settled := now == last; !settled || now == used {
			last = now
			continue
		}
		used = now
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

// version tells one state of a file from another.
func version(content []byte, err error) digest {
	if err != nil {
		content = []byte(err.Error())
	}
	return sha256.Sum256(content)
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(name string) ([]byte, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() { // a pipe would block
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return content, err
}
