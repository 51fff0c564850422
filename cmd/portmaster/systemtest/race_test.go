//go:build race

package systemtest

// raceDetector is true where the tests have the race detector, so that the servers get it, too.
const raceDetector = true
