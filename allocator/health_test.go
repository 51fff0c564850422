package allocator

import (
	"slices"
	"strings"
	"testing"

	"portmaster/allocator/executor"
	"portmaster/allocator/storetest"
)

func wantProblems(t *testing.T, a *Allocator, want ...Problem) {
	t.Helper()
	findings, err := a.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []Problem
	for _, f := range findings {
		got = append(got, f.Problem)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", findings, want)
	}
}

func TestCheckFindsWhatMakesARedisUnfit(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want []Problem
	}{
		"fit":              {nil, nil},
		"evicting":         {[]string{"--maxmemory-policy", "volatile-ttl"}, []Problem{Evicts}},
		"a replica":        {[]string{"--replicaof", "127.0.0.1", "1"}, []Problem{NotMaster}},
		"keeping nothing":  {[]string{"--appendonly", "no"}, []Problem{Volatile}},
		"saving snapshots": {[]string{"--appendonly", "no", "--save", "3600 1 300 100 60 10000"}, []Problem{Volatile}},
		"evicting replica": {[]string{"--maxmemory-policy", "allkeys-lru", "--replicaof", "127.0.0.1", "1"}, []Problem{Evicts, NotMaster}},
	} {
		t.Run(name, func(t *testing.T) {
			store, _, _ := storetest.Private(t, test.args...)
			wantProblems(t, newAllocator(store, long), test.want...)
		})
	}
}

// A snapshot does not have what came after it: Redis at its defaults, 50 s after it saved one.
func TestCheckWarnsOfASnapshotAlone(t *testing.T) {
	found := new(Allocator).judge(executor.Info{AppendOnly: "0"})
	if len(found) != 1 || found[0].Problem != Volatile || !strings.Contains(found[0].Detail, "snapshot") {
		t.Errorf("it found %v", found)
	}
}

func TestCheckFindsThatMemoryRunsOut(t *testing.T) {
	for name, test := range map[string]struct {
		used, most int64
		want       []Problem
	}{
		"no limit":    {1000000, 0, nil},
		"no figures":  {0, 0, nil},
		"below":       {900, 1000, nil},
		"low":         {901, 1000, []Problem{MemoryLow}},
		"almost full": {999, 1000, []Problem{MemoryLow}},
		"full":        {1000, 1000, []Problem{MemoryFull, MemoryLow}},
	} {
		var got []Problem
		for _, f := range new(Allocator).judge(executor.Info{Memory: test.used, MaxMemory: test.most}) {
			if got = append(got, f.Problem); !f.Problem.IsWarning() {
				t.Errorf("%s: %s is no warning", name, f.Problem)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: found %v, want %v", name, got, test.want)
		}
	}
}

func TestCheckBelievesWhoAllowsNone(t *testing.T) {
	store, _, _ := storetest.Private(t, "--appendonly", "no")
	wantProblems(t, New(store.Client, Options{KeyPrefix: store.Prefix, Timeout: long, AllowVolatile: true}))
}

func TestCheckFindsAFailedWrite(t *testing.T) {
	found := new(Allocator).judge(executor.Info{Role: "master", EvictionPolicy: "noeviction", AppendOnly: "1", LastAppend: "err"})
	if len(found) != 1 || found[0].Problem != WriteFailed {
		t.Errorf("it found %v", found)
	}
}

// An embedded store has none of these problems, and not the figures that would tell.
func TestCheckOfTheEmbeddedStore(t *testing.T) {
	wantProblems(t, newAllocator(storetest.Mini(t), long))
}
