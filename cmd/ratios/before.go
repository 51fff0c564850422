package main

// cyclesBefore compares the program with another one (BENCH='-before PROGRAM'), such as the one of the last release.
var cyclesBefore = row{
	"cycles a second of 192 clients on three servers of the other program, to those on three of this one", 1, "", teamsOfThree,
}

// teamsOfThree lets three servers of each program work on the one Redis in turn: a server that nobody calls takes next to nothing.
func teamsOfThree(b *bench) (float64, float64, error) {
	var cycles [2]float64
	for i, program := range []string{b.before, b.program} {
		for len(b.teams[i]) < 3 {
			url, server, err := b.serveBy(program)
			if server != nil {
				b.servers = append(b.servers, server)
			}
			if err != nil {
				return 0, 0, err
			}
			b.teams[i] = append(b.teams[i], url)
		}
		l, err := b.load(3*connections, b.teams[i]...)
		if err != nil {
			return 0, 0, err
		}
		cycles[i] = l.CyclesPS
	}
	return cycles[0], cycles[1], nil
}
