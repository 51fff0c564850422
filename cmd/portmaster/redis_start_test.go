package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portmaster/allocator/storetest"
)

// issue returns the files of an authority that no Redis here trusts.
func issue(t *testing.T) storetest.TLSFiles {
	t.Helper()
	authority, err := storetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue("stranger")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Where Redis will never take the server's calls, the start ends with one line that names the setting to look at.
func TestRefusedStart(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	secure, _, _ := storetest.PrivateTLS(t)
	old, _, _ := storetest.PrivateTLS(t, "--tls-protocols", "TLSv1.2")
	cluster := storetest.Cluster(t, 2)
	sentinel := storetest.Sentinel(t, store)
	secureSentinel := storetest.Sentinel(t, secure)
	guarded := storetest.Sentinel(t, store, "requirepass of-the-sentinel")
	stranger := issue(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	const urlIs, fileIs = "PORTMASTER_REDIS_URL=", "PORTMASTER_REDIS_PASSWORD_FILE="
	const caIs, certIs, keyIs = "PORTMASTER_REDIS_CA_FILE=", "PORTMASTER_REDIS_CERT_FILE=", "PORTMASTER_REDIS_KEY_FILE="
	const loginSays = "PORTMASTER_REDIS_URL or PORTMASTER_REDIS_PASSWORD_FILE: Redis refuses the login: "
	login := loginAs(storetest.User) + "@"
	right := urlIs + "redis://" + login + store.Addr
	rightTLS := urlIs + "rediss://" + login + secure.Addr
	noUser := urlIs + "redis://" + storetest.User + "@" + store.Addr
	ca, cert, key := caIs+secure.TLS.CA, certIs+secure.TLS.Cert, keyIs+secure.TLS.Key
	for _, test := range []struct {
		name     string
		settings []string
		says     []string
	}{
		{"no login", []string{urlIs + "redis://" + store.Addr}, []string{loginSays + "NOAUTH"}},
		{"no login, another database", []string{urlIs + "redis://" + store.Addr + "/1"}, []string{loginSays + "NOAUTH"}},
		{"wrong password", []string{urlIs + "redis://portmaster:hunter2@" + store.Addr}, []string{loginSays + "WRONGPASS"}},
		{"wrong user", []string{urlIs + "redis://" + loginAs("nobody") + "@" + store.Addr}, []string{loginSays + "WRONGPASS"}},
		{"user without a password", []string{urlIs + "redis://default@" + store.Addr}, []string{loginSays + "NOAUTH"}},
		{"wrong password in the file", []string{noUser, fileIs + file("wrong", "hunter2\n")}, []string{loginSays + "WRONGPASS"}},
		{"empty password file", []string{noUser, fileIs + file("empty", "\n")}, []string{"PORTMASTER_REDIS_PASSWORD_FILE: ", "is empty"}},
		{"no password file", []string{noUser, fileIs + "/nonexistent"}, []string{"PORTMASTER_REDIS_PASSWORD_FILE: open /nonexistent: no such file"}},
		{"two passwords", []string{right, fileIs + file("right", storetest.Password)}, []string{"PORTMASTER_REDIS_PASSWORD_FILE: PORTMASTER_REDIS_URL has a password as well"}},
		{"user without the commands", []string{urlIs + "redis://" + loginAs("operator") + "@" + store.Addr}, []string{"PORTMASTER_REDIS_URL: the user lacks a permission: NOPERM"}},
		{"keys of others", []string{right, "PORTMASTER_KEY_PREFIX=eu:ports"}, []string{"PORTMASTER_REDIS_URL: the user lacks a permission: NOPERM"}},
		{"no such database", []string{right + "/99"}, []string{"PORTMASTER_REDIS_URL: the server at this address refuses the calls: DB index is out of range"}},

		{"no such master", []string{urlIs + "redis://" + sentinel + "?master_name=nobody" + dataLogin}, []string{"PORTMASTER_REDIS_URL: the Sentinels know no master of that name"}},
		{"Sentinel wants a password", []string{urlIs + "redis://" + guarded + "?master_name=mymaster" + dataLogin}, []string{loginSays + "NOAUTH"}},
		{"wrong password for the Sentinel", []string{urlIs + "redis://:hunter2@" + guarded + "?master_name=mymaster" + dataLogin}, []string{loginSays + "WRONGPASS"}},
		{"wrong password behind a Sentinel", []string{urlIs + "redis://" + sentinel + "?master_name=mymaster&username=portmaster&password=hunter2"}, []string{loginSays + "WRONGPASS"}},
		{"wrong password file behind a Sentinel", []string{urlIs + "redis://" + sentinel + "?master_name=mymaster&username=portmaster", fileIs + file("wrong", "hunter2\n")}, []string{loginSays + "WRONGPASS"}},
		{"Sentinel taken for a Redis", []string{urlIs + "redis://" + sentinel}, []string{"PORTMASTER_REDIS_URL: the server at this address refuses the calls: unknown command"}},
		{"Redis taken for a Sentinel", []string{urlIs + "redis://" + login + store.Addr + "?master_name=mymaster" + dataLogin}, []string{"PORTMASTER_REDIS_URL: the server at this address refuses the calls: unknown command"}},

		{"no Cluster", []string{urlIs + "redis+cluster://" + login + store.Addr}, []string{"PORTMASTER_REDIS_URL: the server at this address refuses the calls: This instance has cluster support disabled"}},
		{"wrong password for a Cluster", []string{urlIs + "redis+cluster://portmaster:hunter2@" + cluster[0].Addr}, []string{loginSays + "WRONGPASS"}},
		{"Cluster taken for one node", []string{urlIs + "redis://" + login + cluster[1].Addr}, []string{"PORTMASTER_REDIS_URL: Redis is a node of a Cluster", "redis+cluster://"}},
		{"database of a Cluster", []string{urlIs + "redis://" + login + cluster[0].Addr + "/1"}, []string{"PORTMASTER_REDIS_URL: the server at this address refuses the calls: SELECT is not allowed in cluster mode"}},

		{"TLS, nobody vouches", []string{rightTLS, cert, key}, []string{"PORTMASTER_REDIS_CA_FILE: the certificate of Redis is not trusted: x509: ", "unknown authority"}},
		{"TLS, wrong CA", []string{rightTLS, caIs + stranger.CA, cert, key}, []string{"PORTMASTER_REDIS_CA_FILE: the certificate of Redis is not trusted: x509: ", "unknown authority"}},
		{"TLS, no check can be left out", []string{rightTLS + "?skip_verify=true", cert, key}, []string{"PORTMASTER_REDIS_CA_FILE: the certificate of Redis is not trusted: x509: "}},
		{"TLS, wrong name", []string{strings.Replace(rightTLS, "127.0.0.1", "localhost", 1), ca, cert, key}, []string{"PORTMASTER_REDIS_URL: x509: certificate is ", "localhost"}},
		{"TLS, no client certificate", []string{rightTLS, ca}, []string{"PORTMASTER_REDIS_CERT_FILE: Redis refuses the TLS handshake: ", "certificate required"}},
		{"TLS, wrong client certificate", []string{rightTLS, ca, certIs + stranger.Cert, keyIs + stranger.Key}, []string{"PORTMASTER_REDIS_CERT_FILE: Redis refuses the TLS handshake: "}},
		{"TLS 1.2, no client certificate", []string{urlIs + "rediss://" + login + old.Addr, caIs + old.TLS.CA}, []string{"PORTMASTER_REDIS_CERT_FILE: Redis refuses the TLS handshake: "}},
		{"TLS 1.2, wrong client certificate", []string{urlIs + "rediss://" + login + old.Addr, caIs + old.TLS.CA, certIs + stranger.Cert, keyIs + stranger.Key}, []string{"PORTMASTER_REDIS_CERT_FILE: Redis refuses the TLS handshake: "}},
		{"TLS, certificate of another key", []string{rightTLS, ca, cert, keyIs + stranger.Key}, []string{"PORTMASTER_REDIS_CERT_FILE: ", "private key does not match"}},
		{"TLS, no certificate in the file", []string{rightTLS, caIs + secure.TLS.Key, cert, key}, []string{"PORTMASTER_REDIS_CA_FILE: ", "contains no PEM certificate"}},
		{"TLS, no CA file", []string{rightTLS, caIs + "/nonexistent", cert, key}, []string{"PORTMASTER_REDIS_CA_FILE: open /nonexistent: no such file"}},
		{"TLS, no certificate file", []string{rightTLS, ca, certIs + "/nonexistent", key}, []string{"PORTMASTER_REDIS_CERT_FILE: open /nonexistent: no such file"}},
		{"files without TLS", []string{right, ca}, []string{"PORTMASTER_REDIS_CA_FILE requires a PORTMASTER_REDIS_URL that begins with rediss://"}},
		{"wrong CA for a Cluster", []string{strings.Replace(rightTLS, "rediss:", "rediss+cluster:", 1), caIs + stranger.CA}, []string{"PORTMASTER_REDIS_CA_FILE: the certificate of Redis is not trusted"}},
		{"no client certificate for a Sentinel", []string{urlIs + "rediss://" + secureSentinel + "?master_name=mymaster" + dataLogin, ca}, []string{"PORTMASTER_REDIS_CERT_FILE: Redis refuses the TLS handshake: "}},
		{"wrong CA for a Sentinel", []string{urlIs + "rediss://" + secureSentinel + "?master_name=mymaster" + dataLogin, caIs + stranger.CA}, []string{"PORTMASTER_REDIS_CA_FILE: the certificate of Redis is not trusted"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := run(t, []string{"serve"}, append(test.settings, "PORTMASTER_REDIS_TIMEOUT=10s", "PORTMASTER_LOG_LEVEL=error")...)
			if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "portmaster: "+test.says[0]) ||
				slices.ContainsFunc(test.says, func(part string) bool { return !strings.Contains(stderr, part) }) {
				t.Errorf("exit code %d, and it says\n%s, want %q", code, stderr, test.says)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("the password is shown: %s", stderr)
			}
			storetest.NoPasswordIn(t, stdout+stderr)
		})
	}
	if !strings.Contains(readPage(t, settingsPage).text, "\nportmaster: "+loginSays+"WRONGPASS\n") {
		t.Errorf("%s shows another line", settingsPage)
	}
}

// What Redis 6.2 to 8 and Valkey answer, word for word. The text of ERR is shown, without what a command was called with.
func TestRefusedBy(t *testing.T) {
	for reply, want := range map[string][2]string{
		"NOPERM this user has no permissions to run the 'evalsha' command or its subcommand":                             {"REDIS_URL", "lacks a permission: NOPERM"},
		"NOPERM this user has no permissions to access one of the keys used as arguments":                                {"REDIS_URL", "lacks a permission: NOPERM"},
		"NOPERM User portmaster has no permissions to run the 'evalsha' command":                                         {"REDIS_URL", "lacks a permission: NOPERM"},
		"NOPERM No permissions to access a key":                                                                          {"REDIS_URL", "lacks a permission: NOPERM"},
		"NOPERM ACL failure in script: User portmaster has no permissions to run the 'hget' command script: 1, on @u:1.": {"REDIS_URL", "lacks a permission: NOPERM"},
		"NOPERM in whatever words come next":                                                                             {"REDIS_URL", "lacks a permission: NOPERM"},
		"ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1.":           {"REDIS_URL", "refuses the calls: The user executing the script can't run"},
		"WRONGPASS invalid username-password pair or user is disabled.":                                                  {"REDIS_URL or PORTMASTER_REDIS_PASSWORD_FILE", "login: WRONGPASS"},
		"NOAUTH Authentication required.":                                                                                {"REDIS_URL or PORTMASTER_REDIS_PASSWORD_FILE", "login: NOAUTH"},
		"DENIED Redis is running in protected mode":                                                                      {"REDIS_URL or PORTMASTER_REDIS_PASSWORD_FILE", "login: DENIED"},
		"MOVED 1 127.0.0.1:6379":                                        {"REDIS_URL", "redis+cluster://"},
		"ERR DB index is out of range":                                  {"REDIS_URL", "DB index is out of range"},
		"ERR SELECT is not allowed in cluster mode":                     {"REDIS_URL", "SELECT is not allowed in cluster mode"},
		"ERR This instance has cluster support disabled":                {"REDIS_URL", "cluster support disabled"},
		"ERR unknown command 'SENTINEL', with args beginning with: 'x'": {"REDIS_URL", "unknown command 'SENTINEL'"},
		"ERR max number of clients reached":                             {"", ""},
		"LOADING Redis is loading the dataset in memory":                {"", ""},
		"MISCONF unknown command":                                       {"", ""},
	} {
		if variable, says := refusedBy(reply); variable != want[0] || !strings.Contains(says, want[1]) {
			t.Errorf("%q: %q, %q, want %q", reply, variable, says, want)
		}
	}
}

// A Redis that is merely away does not keep the server from starting, whatever its kind.
func TestStartWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	files := issue(t)
	for _, url := range []string{
		"redis://127.0.0.1:1", "redis://" + silent.Addr().String(), "redis://nobody.invalid", "unix:///nonexistent", "rediss://127.0.0.1:1",
		"rediss://" + silent.Addr().String(), "redis://127.0.0.1:1?master_name=m&addr=127.0.0.1:2", "redis://" + silent.Addr().String() + "?master_name=m",
		"redis+cluster://127.0.0.1:1?addr=127.0.0.1:2", "redis+cluster://" + silent.Addr().String(),
	} {
		t.Run(url, func(t *testing.T) {
			settings := []string{"PORTMASTER_REDIS_URL=" + url, "PORTMASTER_REDIS_TIMEOUT=200ms"}
			if strings.HasPrefix(url, "rediss") {
				settings = append(settings, files.Settings()...)
			}
			p := startProgram(t, settings...)
			if !strings.Contains(p.log.String(), "Redis does not answer yet") {
				t.Errorf("it does not say that Redis is away:\n%s", p.log)
			}
			p.must(t, 503, "GET", "/readyz", "")
			p.must(t, 200, "GET", "/livez", "")
			p.must(t, 503, "PUT", "/v1/services/django", `{"start":5000,"end":5009}`)
		})
	}
}
