//go:build !race

package storetest

// Race is true when the tests have the race detector. A Lua script on miniredis, which runs in the test process, takes ten times as
// long with it.
const Race = false
