package main

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest"
)

// unused are the commands of deployments/redis/users.acl that the runs of TestUsersFile do not show to be used, and why
// they are there.
var unused = map[string]string{
	"portmaster info":        "asked for memory, replication and persistence; the test itself asks, too",
	"portmaster wait":        "the same",
	"portmaster asking":      "a Cluster while a slot moves: TestCluster",
	"portmaster hkeys":       "a range is cut while some ports are held: TestModel",
	"portmaster hscan":       "the same while many are: TestCutInSteps",
	"portmaster publish":     "a script tells the servers of a port: TestUsersFileOpensTheChannels",
	"portmaster subscribe":   "the same",
	"portmaster unsubscribe": "the same",
	"portmaster ping":        "go-redis asks so whether a connection that only listens is alive",
	"operator ping":          "the first thing that anybody tries",
	"sentinel script|kill":   "a script that runs for too long",
}

// users reads deployments/redis/users.acl: the commands of each user.
func users(t *testing.T) map[string][]string {
	t.Helper()
	path, err := storetest.UsersFile()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "user" {
			t.Fatalf("%s has a line that Redis does not read: %s", path, line)
		}
		for _, word := range words[2:] {
			if command, ok := strings.CutPrefix(word, "+"); ok {
				commands[words[1]] = append(commands[words[1]], command)
			} else if strings.HasPrefix(word, ">") || strings.HasPrefix(word, "#") || word == "nopass" {
				t.Errorf("%s lets in everybody who has read it: %s", path, line)
			}
		}
	}
	return commands
}

// Each user of the file can do what is needed, and nothing else. Redis counts what runs, in scripts, too.
func TestUsersFile(t *testing.T) {
	t.Parallel()
	users := users(t)
	if got := users["default"]; !slices.Equal(got, []string{"@all"}) {
		t.Errorf("default may do %v: Redis 7.0 reads its append-only file as that user, and leaves out what it may not do", got)
	}
	used := map[string]map[string]bool{"portmaster": {}, "replica": {}, "sentinel": {}, "operator": {}}

	node, _, _ := storetest.Private(t)
	reset(t, node)
	url := "redis://" + loginAs(storetest.User) + "@" + node.Addr + "/2?client_name=portmaster"
	everyRoute(t, atRedis(t, url))
	if code, stdout, stderr := run(t, []string{"check", "--repair"}, "PORTMASTER_REDIS_URL="+url); code != 0 {
		t.Errorf("check exits with %d and says %q %q", code, stdout, stderr)
	}
	count(t, node, used["portmaster"])
	cluster := storetest.Cluster(t, 1)[0]
	reset(t, cluster)
	everyRoute(t, atRedis(t, "redis+cluster://"+loginAs(storetest.User)+"@"+cluster.Addr))
	count(t, cluster, used["portmaster"])
	failOver(t, used["replica"], used["sentinel"])
	for _, s := range steps(t, sectionLook) {
		for _, command := range regexp.MustCompile(`redis-cli --raw (\w+)`).FindAllStringSubmatch(s.commands.text, -1) {
			used["operator"][strings.ToLower(command[1])] = true
		}
	}

	for user, commands := range used {
		for _, command := range users[user] {
			if unused[user+" "+command] == "" && !commands[command] {
				t.Errorf("%s may %s, and nothing shows what for", user, command)
			}
		}
		for command := range commands {
			if !slices.Contains(users[user], command) {
				t.Errorf("%s uses %s, and the file does not say so", user, command)
			}
		}
	}
	for entry := range unused {
		if user, command, _ := strings.Cut(entry, " "); !slices.Contains(users[user], command) {
			t.Errorf("%s is explained, and not in the file", entry)
		}
	}
}

// The server hears what its scripts say on its own channels, and may neither listen nor talk on any other.
func TestUsersFileOpensTheChannels(t *testing.T) {
	store := storetest.Redis(t)
	ctx, client := t.Context(), store.Client
	const ours, others = "portmaster:{default}:news", "news"
	say := func(channel string) error {
		script := redis.NewScript(`return redis.call('PUBLISH', ARGV[1], 'hello')`)
		if err := script.Load(ctx, client).Err(); err != nil {
			t.Fatal(err)
		}
		return script.EvalSha(ctx, client, nil, channel).Err()
	}
	subscription := client.Subscribe(ctx, ours)
	defer subscription.Close()
	if _, err := subscription.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if err := say(ours); err != nil {
		t.Fatal(err)
	}
	if message, err := subscription.ReceiveMessage(ctx); err != nil || message.Payload != "hello" {
		t.Errorf("it hears %v, %v", message, err)
	}
	if err := subscription.Ping(ctx); err != nil {
		t.Error(err)
	}
	if pong, err := subscription.Receive(ctx); err != nil {
		t.Errorf("a ping is answered with %v, %v", pong, err)
	}
	if err := subscription.Unsubscribe(ctx, ours); err != nil {
		t.Error(err)
	}
	if answer, err := subscription.Receive(ctx); err != nil {
		t.Errorf("it cannot leave: %v, %v", answer, err)
	}

	if err := say(others); err == nil {
		t.Error("it may talk on a channel of others")
	}
	stranger := client.Subscribe(ctx, others)
	defer stranger.Close()
	if _, err := stranger.Receive(ctx); !redis.HasErrorPrefix(err, "NOPERM") {
		t.Errorf("it may listen on a channel of others: %v", err)
	}
}

// everyRoute asks for everything that the server can do, so that each branch of each script that sends a command is run.
func everyRoute(t *testing.T, p *program) {
	t.Helper()
	offer := func(service, name string) (path string) {
		t.Helper()
		answer := p.must(t, 201, "POST", "/v1/services/"+service+"/offers", `{"name":"`+name+`"}`)
		return "/v1/services/" + service + "/offers/" + volatile[0].pattern.FindString(answer)
	}
	const own = "6f8ffc86-d98a-49ba-848a-a7cbaaea9360"
	p.must(t, 200, "GET", "/readyz", "")
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	p.must(t, 409, "POST", "/v1/services", `{"name":"flask","start":5005,"end":5010}`)
	p.must(t, 201, "POST", "/v1/services", `{"name":"single","start":6000,"end":6000}`)
	rejected := offer("django", "web-01")
	p.must(t, 204, "DELETE", rejected, "")
	p.must(t, 200, "PUT", "/v1/services/django", `{"start":5001,"end":5009}`) // cuts off a port that was handed out
	accepted := offer("django", "web-01")
	p.must(t, 409, "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
	p.must(t, 200, "GET", accepted, "")
	p.must(t, 201, "PUT", accepted, "")
	p.must(t, 200, "PUT", accepted, "")
	p.must(t, 409, "DELETE", "/v1/services/django", "")
	p.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-02","secret":"`+own+`"}`)
	p.must(t, 200, "POST", "/v1/services/django/offers", `{"name":"web-02","secret":"`+own+`"}`)
	single := offer("single", "web-01")
	p.must(t, 409, "POST", "/v1/services/single/offers", `{"name":"web-02"}`)
	p.must(t, 409, "DELETE", "/v1/services/single", "")
	p.must(t, 204, "DELETE", single, "")
	p.must(t, 204, "DELETE", "/v1/services/single", "")
	p.must(t, 201, "PUT", "/v1/pools/brief/services/single", `{"start":6000,"end":6000}`)
	p.must(t, 204, "DELETE", "/v1/pools/brief/services/single", "")
	for _, path := range []string{"/v1/pools", "/v1/services", "/v1/services/django", "/v1/services/django/offers", "/v1/services/django/ports",
		"/v1/services/django/ports/web-01", "/v1/services/django/ports/5001", "/metrics",
		"/v1/services/django/history"} {
		p.must(t, 200, "GET", path, "")
	}
	p.follows(t, "/v1/events?last_event_id=0-0", "event: released")
	p.must(t, 409, "DELETE", "/v1/services/django", "")
	p.must(t, 204, "DELETE", "/v1/services/django/ports/5001", "")
	everyWant(t, p)
	p.must(t, 404, "DELETE", "/v1/services/nobody", "")
}

// follows reads a stream of events until a line comes, which a release brings about.
func (p *program) follows(t *testing.T, path, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+p.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() && lines.Text() != line {
		if lines.Text() == "event: allocated" {
			p.must(t, 201, "POST", "/v1/services/django/ports", `{"name":"follows"}`)
			p.must(t, 204, "DELETE", "/v1/services/django/ports/follows", "")
		}
	}
	if lines.Text() != line {
		t.Fatalf("%s has no line %q: %v", path, line, lines.Err())
	}
}

// everyWant asks for ports in all the ways that there are.
func everyWant(t *testing.T, p *program) {
	t.Helper()
	const mail, own = "/v1/services/mail", "0c6f3a7d-8e91-4c39-9b1e-5d0e2c8b2f4a"
	p.must(t, 201, "PUT", mail, `{"start":7000,"end":7009,"cooldown":"1ms"}`)
	p.must(t, 201, "POST", mail+"/ports", `{"name":"block","count":3,"lease":"1h","secret":"`+own+`"}`)
	p.must(t, 200, "POST", mail+"/ports", `{"name":"block","count":3,"lease":"1h","secret":"`+own+`"}`)
	p.must(t, 200, "POST", mail+"/ports/7001/renew", `{"secret":"`+own+`"}`)
	p.must(t, 204, "DELETE", mail+"/ports/7002", "")
	p.must(t, 201, "POST", mail+"/ports", `[{"name":"a","port":7005,"lease":1},{"name":"b","prefer":7005},{"name":"c","count":2}]`)
	p.must(t, 409, "POST", mail+"/ports", `{"name":"d","port":7005}`)
	used := p.must(t, 201, "POST", mail+"/offers", `{"name":"d"}`)
	p.must(t, 204, "POST", mail+"/offers/"+volatile[0].pattern.FindString(used)+"/reject", `{"reason":"in_use"}`)
	p.must(t, 409, "POST", mail+"/offers?wait=10ms", `{"name":"e","count":9}`)
	p.must(t, 201, "POST", mail+"/ports?wait=10s", `{"name":"e","count":3}`)
	p.must(t, 200, "PUT", mail, `{"start":7000,"end":7010}`)
	p.must(t, 200, "GET", mail, "")
}

func reset(t *testing.T, store storetest.Store) {
	t.Helper()
	if err := store.Admin.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// count adds the commands that ran on a Redis since its figures were reset, and sees that none was refused.
func count(t *testing.T, store storetest.Store, used map[string]bool) {
	t.Helper()
	store.NothingRefused(t)
	stats := store.Admin.Info(t.Context(), "commandstats").Val()
	for _, line := range regexp.MustCompile(`cmdstat_(\S+):calls=(\d+)`).FindAllStringSubmatch(stats, -1) {
		ours := []string{"config|resetstat", "acl|log", "info"} // of these tests
		always := []string{"hello", "auth"}                     // nobody can be kept from those
		if line[2] != "0" && !slices.Contains(append(ours, always...), line[1]) {
			used[line[1]] = true
		}
	}
	if len(used) < 2 {
		t.Fatalf("Redis counted next to nothing:\n%s", stats)
	}
}

// failOver has a Sentinel promote a replica, with nobody else there, and adds what the replica and the Sentinel used.
func failOver(t *testing.T, replicas, sentinels map[string]bool) {
	t.Helper()
	master, _, _ := storetest.Private(t, replicaLogin...)
	reset(t, master)
	replica := replicaOf(t, master)
	count(t, master, replicas)

	reset(t, master)
	reset(t, replica)
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: storetest.Sentinel(t, master)})
	t.Cleanup(func() { sentinel.Close() })
	eventually(t, "the Sentinel fails over", func() bool { return sentinel.Failover(t.Context(), "mymaster").Err() == nil })
	eventually(t, "the old master follows the new one", func() bool {
		return strings.Contains(master.Admin.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	count(t, master, sentinels)
	count(t, replica, sentinels)
	for command := range replicas {
		if !slices.Contains(users(t)["sentinel"], command) {
			delete(sentinels, command) // the old master is a replica now
		}
	}
	sentinels["info"] = true // which the tests use, too; without it a Sentinel finds no replica
}

// replicaLogin is how a replica logs in at its master, and a master at the one that follows it.
var replicaLogin = []string{"--masteruser", "replica", "--masterauth", storetest.Password}

// replicaOf starts a replica, and waits until it follows.
func replicaOf(t *testing.T, master storetest.Store) storetest.Store {
	t.Helper()
	host, port, _ := net.SplitHostPort(master.Addr)
	replica, _, _ := storetest.Private(t, append(replicaLogin, "--replicaof", host+" "+port)...)
	eventually(t, "the replica follows", func() bool {
		return strings.Contains(replica.Admin.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	return replica
}
