package client

import (
	"encoding/json"
	"testing"
	"time"
)

// A duration of whole milliseconds is written with three decimals at most, as the server wants it.
func TestSecondsHaveThreeDecimals(t *testing.T) {
	for d := time.Millisecond; d < 100*time.Second; d += time.Millisecond {
		text, err := json.Marshal(seconds(d))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := time.ParseDuration(string(text) + "s"); err != nil || again != d || len(text) > len("99.999") {
			t.Fatalf("%s is written as %s", d, text)
		}
	}
}
