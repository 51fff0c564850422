package client

import "time"

// SetMaxSilence makes streams of events impatient, so that a test is short.
func SetMaxSilence(c *Client, d time.Duration) { c.maxSilence = d }
