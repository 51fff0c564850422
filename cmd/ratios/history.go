package main

// historyCost measures how many percent more the cycle takes Redis while accepts and releases are events of a history: two servers
// on one Redis, with and without a history, take turns, since the difference is small.
func historyCost(b *bench) (float64, float64, error) {
	if b.forgetful == "" {
		url, server, err := b.serve("PORTMASTER_HISTORY=0")
		if err != nil {
			return 0, 0, err
		}
		b.forgetful, b.servers = url, append(b.servers, server)
	}
	var spent, calls [2]float64
	for range 8 {
		for i, url := range []string{b.url, b.forgetful} {
			before := fineCPU(b.redis)
			l, err := b.load(connections, url)
			if err != nil {
				return 0, 0, err
			}
			spent[i] += fineCPU(b.redis) - before
			calls[i] += l.Requests
		}
	}
	return (spent[0]/calls[0]/(spent[1]/calls[1]) - 1) * 100, 1, nil
}
