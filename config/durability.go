package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Durability is how many replicas must have a change before it is answered: "local" is none, "replicated:N" is N.
type Durability int

// maxReplicas is the largest N; no deployment waits for more.
const maxReplicas = 16

// UnmarshalText reads local or replicated:N.
func (d *Durability) UnmarshalText(text []byte) error {
	if string(text) == "local" {
		*d = 0
		return nil
	}
	number, ok := strings.CutPrefix(string(text), "replicated:")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > maxReplicas {
		return fmt.Errorf("must be local or replicated:N, N within 1-%d", maxReplicas)
	}
	*d = Durability(n)
	return nil
}
