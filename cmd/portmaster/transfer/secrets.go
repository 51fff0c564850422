package transfer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"portmaster/client"
)

// secrets are those of the allocations that an import made. They are in the file before the claims are made, so an import that was
// interrupted makes the same claims when it is repeated.
type secrets struct {
	path  string
	known map[secretKey]string
}

type secretKey struct {
	Pool    string `json:"pool"`
	Service string `json:"service"`
	Name    string `json:"name"`
	Port    int    `json:"port"`
}

type secretLine struct {
	secretKey
	Secret string `json:"secret"`
}

func readSecrets(path string) (*secrets, error) {
	s := &secrets{path, map[secretKey]string{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return nil, err
	}
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for scanner.Scan() {
		var line secretLine
		if json.Unmarshal(scanner.Bytes(), &line) == nil { // the last line may have been cut short
			s.known[line.secretKey] = line.Secret
		}
	}
	return s, scanner.Err()
}

// of returns the secrets for some allocations, which are in the file then.
func (s *secrets) of(lines []Line) (all []string, err error) {
	var added bytes.Buffer
	to := json.NewEncoder(&added)
	for _, line := range lines {
		key := secretKey{line.Pool, line.Allocation.Service, line.Allocation.Name, line.Allocation.Port}
		secret := s.known[key]
		if secret == "" {
			secret = client.NewSecret()
			s.known[key] = secret
			if err := to.Encode(secretLine{key, secret}); err != nil {
				return nil, err
			}
		}
		all = append(all, secret)
	}
	return all, s.append(added.Bytes())
}

func (s *secrets) append(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	file, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(
		file.Chmod(0o600), // of a file that was there
		second(file.Write(append([]byte("\n"), text...))), // behind a line that was cut short
		file.Sync(),
		file.Close())
	return err
}

func second[T any](_ T, err error) error { return err }
