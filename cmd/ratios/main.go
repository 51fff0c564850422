// Ratios measures what a call costs, as ratios of processor time or latency taken in one run: absolute times drift on a
// machine that others use too, ratios do not. It starts a redis-server and a portmaster of its own (make bench).
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// tolerance is how far a ratio may be over its bound before the run fails: what noise does.
const tolerance = 1.15

// row is one ratio: each round measures it once.
type row struct {
	name    string
	bound   float64
	unit    string // of measured and to; empty where the row is a figure without a divisor
	measure func(*bench) (measured, to float64, err error)
}

func main() {
	program := flag.String("program", "bin/portmaster", "the program to measure")
	before := flag.String("before", "", "another program to compare with")
	rounds := flag.Int("rounds", 5, "how often everything is measured; the median counts")
	window := flag.Duration("window", 2*time.Second, "how long one measurement under load takes")
	short := flag.Bool("short", false, "one short round, to see that it works: bounds are not checked")
	plainAddr := flag.String("serve-plain", "", "serve the plain route at this address, and measure nothing: for the process that this one starts")
	only := flag.String("only", "", "only the rows that begin with this")
	flag.Parse()
	if *plainAddr != "" {
		exit(servePlain(*plainAddr))
	}
	if *before != "" {
		rows = append(rows, cyclesBefore)
	}
	rows = slices.DeleteFunc(rows, func(r row) bool { return !strings.HasPrefix(r.name, *only) })
	if *short {
		*rounds, *window = 1, 300*time.Millisecond
	}
	exit(run(*program, *before, *rounds, *window, !*short))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(program, before string, rounds int, window time.Duration, check bool) error {
	b, err := start(program, before, window)
	if err != nil {
		return err
	}
	defer b.stop()
	results := make([][3][]float64, len(rows)) // per row: ratios, measured, to
	for round := range rounds {
		for i, r := range rows {
			measured, to, err := r.measure(b)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			for k, v := range []float64{measured / to, measured, to} {
				results[i][k] = append(results[i][k], v)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s: %.2f\n", round+1, rounds, r.name, measured/to)
		}
	}
	over := report(results)
	if check && len(over) > 0 {
		return fmt.Errorf("over the bound: %s", strings.Join(over, "; "))
	}
	return nil
}

// report prints the medians as a table in Markdown, and returns the rows that are over their bounds.
func report(results [][3][]float64) (over []string) {
	fmt.Printf("Medians on %s, %d cores, %s, %s.\n\n", cpuModel(), runtime.NumCPU(), runtime.Version(), redisVersion())
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| ratio\t| measured\t| at most\t| of\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|")
	for i, r := range rows {
		ratio := median(results[i][0])
		of := fmt.Sprintf("%.1f to %.1f %s", median(results[i][1]), median(results[i][2]), r.unit)
		if r.unit == "" {
			of = ""
		}
		fmt.Fprintf(t, "| %s\t| %.2f\t| %g\t| %s\t|\n", r.name, ratio, r.bound, of)
		if ratio > r.bound*tolerance {
			over = append(over, fmt.Sprintf("%s: %.2f of %g", r.name, ratio, r.bound))
		}
	}
	t.Flush()
	return over
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func redisVersion() string {
	out, _ := exec.Command("redis-server", "--version").Output()
	for word := range strings.FieldsSeq(string(out)) {
		if version, ok := strings.CutPrefix(word, "v="); ok {
			return "Redis " + version
		}
	}
	return "Redis"
}
