// Package follow reads files that may be replaced while the server runs, and notices when what they hold has changed.
package follow

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"time"
)

// Period is the time between two looks at files. A change is in use after two.
const Period = 500 * time.Millisecond

// Version tells one state of some files from another. It is made of their content, so a swapped symlink is a change, and an equal time
// of change and an equal size make no difference.
type Version [sha256.Size]byte

// Changes looks every Period until ctx ends, and uses each version that two looks in a row have seen, beginning after the one in use:
// before, a file may be half written.
func Changes(ctx context.Context, used Version, look func() (now Version, use func())) {
	ticker := time.NewTicker(Period)
	defer ticker.Stop()
	for last := used; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, use := look()
		if now == last && now != used {
			used = now
			use()
		}
		last = now
	}
}

// Read reads a regular file of at most so many bytes: a pipe would block.
func Read(name string, most int64) ([]byte, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return content, err
}
