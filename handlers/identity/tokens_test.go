package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portmaster/handlers/follow"
)

func TestTokens(t *testing.T) {
	ci, ciLine := line(t, "ci", Client, "default/ci-*,games/?", "held=200,rate=50,expires=2999-06-01")
	old, oldLine := line(t, "old", Operator, "*/*", "expires=2020-01-01")
	foreign, _ := line(t, "ci", Client, "*/*", "-")
	a, log, err := start(t, Options{TokensFile: write(t, "tokens", "# comment\r\n\n"+ciLine+"  # more\n"+oldLine)})
	if err != nil {
		t.Fatal(err)
	}
	p := accepts(t, a, ci)
	if p.Name != "ci" || p.Owner != "ci" || p.Role != Client || p.Held != 200 || p.Rate != 50 ||
		!p.Expires.Equal(time.Date(2999, 6, 2, 0, 0, 0, 0, time.UTC)) || p.Scope.String() != "default/ci-*,games/?" {
		t.Errorf("got %+v", p)
	}
	for _, header := range []string{"bearer " + ci, "BEARER  " + ci} {
		if _, err := a.Authenticate(t.Context(), header); err != nil {
			t.Errorf("the scheme of %q is refused", header[:8])
		}
	}
	for cause, headers := range map[error][]string{
		errNoToken: {""},
		errMalformed: {
			"Bearer", "Bearer ", ci, "Basic " + ci, "Bearer" + ci, "Bearer " + ci + " ", "Bearer " + ci + "," + ci, "Bearer\t" + ci,
			"Bearer " + ci + "\x00", " Bearer " + ci, "Bearer Bearer " + ci, "Bearer " + strings.Repeat("a", 8<<10),
		},
		errUnknown: {
			"Bearer " + ci[1:], "Bearer " + ci + "=", "Bearer " + strings.ToUpper(ci), "Bearer " + foreign, "Bearer a.b.c",
			"Bearer " + hashOf(ci), "Bearer " + strings.Repeat("a", 8<<10-7),
		},
		errExpired: {"Bearer " + old},
	} {
		for _, header := range headers {
			before := len(log.String())
			if refuses(t, a, header); !strings.Contains(log.String()[before:], cause.Error()) {
				t.Errorf("the cause of %.60q is logged as %s", header, log.String()[before:])
			}
		}
	}
	for _, canary := range []string{ci, old, foreign, hashOf(ci), hashOf(old)} {
		if strings.Contains(log.String(), canary) || strings.Contains(log.String(), canary[3:20]) {
			t.Error("a token or its hash is logged")
		}
	}
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// TestTokenExpires: to the end of the last day in UTC.
func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its time begins with the year 2000
		token, text := line(t, "ci", Client, "*/*", "expires=2000-01-02")
		a, _, err := start(t, Options{})
		if err == nil {
			err = a.tokens.use([]byte(text)) // not a file, which would be read 345,600 times
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(48*time.Hour - time.Nanosecond)
		accepts(t, a, token)
		time.Sleep(time.Nanosecond)
		refuses(t, a, "Bearer "+token)
	})
}

func TestTokensFileFaults(t *testing.T) {
	hash := "sha256:" + hashOf("x")
	for text, want := range map[string]string{
		"ci client */* -":                                                        "line 1: must have five fields",
		"\n#\nci client */* - " + hash + " x":                                    "line 3: must have five fields",
		"c:i client */* - " + hash:                                               "line 1: name must",
		strings.Repeat("a", 65) + " client */* - " + hash:                        "line 1: name must",
		"ci Client */* - " + hash:                                                "line 1: role must",
		"ci client * - " + hash:                                                  "line 1: scope must",
		"ci client a/b/c - " + hash:                                              "line 1: scope must",
		"ci client a/[b] - " + hash:                                              "line 1: scope must",
		"ci client a/, - " + hash:                                                "line 1: scope must",
		"ci client " + strings.Repeat("a/b,", 64) + "a/b - " + hash:              "line 1: scope must have at most 64",
		"ci client */* held=0 " + hash:                                           "line 1: held must",
		"ci client */* held=65536 " + hash:                                       "line 1: held must",
		"ci client */* rate=1e3 " + hash:                                         "line 1: rate must",
		"ci client */* expires=2027-02-30 " + hash:                               "line 1: expires must",
		"ci client */* held=1,held=2 " + hash:                                    "line 1: held is given twice",
		"ci client */* quota=1 " + hash:                                          "line 1: options must",
		"ci client */* held=1, " + hash:                                          "line 1: options must",
		"ci client */* - " + hash[:70]:                                           "line 1: sha256 must",
		"ci client */* - md5:" + hash[7:]:                                        "line 1: sha256 must",
		"ci client */* - " + hash[7:]:                                            "line 1: sha256 must",
		"a client */* - " + hash + "\nb client */* - " + hash:                    "line 2: sha256 is that of line 1",
		"a client */* - " + hash + "\na reader */* - sha256:" + hashOf("y"):      "line 2: role differs from that of line 1",
		"a client */* - " + hash + "\na client */a - sha256:" + hashOf("y"):      "line 2: scope differs",
		"a client */* - " + hash + "\na client */* held=1 sha256:" + hashOf("y"): "line 2: held differs",
		"a client */* - " + hash + "\na client */* rate=1 sha256:" + hashOf("y"): "line 2: rate differs",
	} {
		_, _, err := start(t, Options{TokensFile: write(t, "tokens", text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		} else if strings.Contains(err.Error(), hash[7:30]) {
			t.Errorf("%.60q: the error tells the hash", text)
		}
	}
	for _, path := range []string{t.TempDir(), os.DevNull} {
		if _, _, err := start(t, Options{TokensFile: path}); err == nil {
			t.Errorf("%s is taken for a file", path)
		}
	}
	if _, _, err := start(t, Options{TokensFile: write(t, "tokens", strings.Repeat("#", maxFile+1))}); err == nil {
		t.Error("a file that is too large is read")
	}
	if _, err := Line("ci", "root", "*/*", "-", "x"); err == nil {
		t.Error("Line makes one that cannot be read")
	}
}

// The clock of these tests is that of synctest, so the two seconds are exact.
const noticed = 2 * time.Second

func TestTokensFileFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, firstLine := line(t, "ci", Client, "*/*", "-")
		second, secondLine := line(t, "ci", Client, "*/*", "expires=2999-01-01")
		path := write(t, "tokens", firstLine)
		a, log, err := start(t, Options{TokensFile: path})
		if err != nil {
			t.Fatal(err)
		}
		replace := func(content string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(noticed)
		}
		replace(firstLine + secondLine)
		accepts(t, a, first)
		accepts(t, a, second)

		replace(secondLine)
		refuses(t, a, "Bearer "+first)
		accepts(t, a, second)

		for name, fault := range map[string]func(){
			"malformed": func() { replace(firstLine + "ci client\n") },
			"too large": func() { replace(firstLine + strings.Repeat("#", maxFile)) },
			"gone":      func() { os.Remove(path); time.Sleep(noticed) },
		} {
			fault()
			time.Sleep(time.Minute)
			if !a.TokensBroken() {
				t.Errorf("a file that is %s is not broken", name)
			}
			accepts(t, a, second)
			refuses(t, a, "Bearer "+first)
			if replace(secondLine); a.TokensBroken() {
				t.Errorf("a file that was %s stays broken", name)
			}
		}
		if n := strings.Count(log.String(), "tokens file is broken"); n != 3 {
			t.Errorf("three faults are logged %d times: %s", n, log)
		}
		if !strings.Contains(log.String(), "line 2: must have five fields") || strings.Contains(log.String(), hashOf(first)) {
			t.Errorf("the log lacks the line and the field, or has a hash: %s", log)
		}
		replace("")
		refuses(t, a, "Bearer "+second)
	})
}

// TestTokensFileSwapped: Kubernetes replaces a link to the folder that the file is in. Times and sizes stay the same.
func TestTokensFileSwapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, firstLine := line(t, "ci", Client, "*/*", "-")
		second, secondLine := line(t, "ci", Client, "*/*", "-")
		for version, content := range map[string]string{"..1": firstLine, "..2": secondLine} {
			path := filepath.Join(dir, version, "tokens")
			os.Mkdir(filepath.Dir(path), 0o700)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			os.Chtimes(path, time.Now(), time.Now())
		}
		os.Symlink("..1", filepath.Join(dir, "..data"))
		os.Symlink("..data/tokens", filepath.Join(dir, "tokens"))
		a, _, err := start(t, Options{TokensFile: filepath.Join(dir, "tokens")})
		if err != nil {
			t.Fatal(err)
		}
		accepts(t, a, first)
		os.Symlink("..2", filepath.Join(dir, "..new"))
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(noticed)
		accepts(t, a, second)
		refuses(t, a, "Bearer "+first)
	})
}

// TestTokensFileHalfWritten: a file that is seen empty once, while it is written, ends no token.
func TestTokensFileHalfWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, text := line(t, "ci", Client, "*/*", "-")
		path := write(t, "tokens", text)
		a, _, err := start(t, Options{TokensFile: path})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(follow.Period / 2)
		os.WriteFile(path, nil, 0o600)
		time.Sleep(follow.Period)
		os.WriteFile(path, []byte(text+"\n"), 0o600)
		for range 10 {
			time.Sleep(follow.Period)
			accepts(t, a, token)
		}
	})
}
