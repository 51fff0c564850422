package storetest_test

import (
	"testing"

	"portmaster/allocator/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// TestStores says in the log of the tests which stores they ran on.
func TestStores(t *testing.T) {
	t.Log("stores: " + storetest.Stores())
	storetest.Each(t, func(t *testing.T, store storetest.Store) {
		if err := store.Admin.Ping(t.Context()).Err(); err != nil {
			t.Error(err)
		}
	})
}
