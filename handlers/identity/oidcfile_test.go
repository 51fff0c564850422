package identity

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestOIDCFileFaults(t *testing.T) {
	rule := object{"match": object{"project_id": "42"}, "role": "client", "scope": "*/*", "owner": "gitlab:{project_id}"}
	issuer := object{"issuer": house, "audience": "portmaster", "rules": []object{rule}}
	match := func(host string, match object) []object {
		return []object{with(issuer, object{"issuer": host, "rules": []object{with(rule, object{"match": match})}})}
	}
	ruled := func(change object) []object {
		return []object{with(issuer, object{"rules": []object{with(rule, change)}})}
	}
	of := func(change object) []object { return []object{with(issuer, change)} }
	other := with(issuer, object{"issuer": otherHouse})
	gitHub, gitLab := "https://token.actions.githubusercontent.com", "https://gitlab.com"
	for _, c := range []struct {
		issuers []object
		want    string // empty: no fault
	}{
		{of(nil), ""},
		{of(object{"issuer": nil}), "/issuers/0/issuer must"},
		{of(object{"issuer": "http://gitlab.example.com"}), "/issuers/0/issuer must be https://"},
		{of(object{"issuer": "https://user@gitlab.example.com"}), "/issuers/0/issuer must be https://"},
		{of(object{"audience": nil}), "/issuers/0/audience is required"},
		{of(object{"rules": []object{}}), "/issuers/0/rules must"},
		{of(object{"jwks": "x"}), "/issuers/0/jwks"},
		{of(object{"jwks_file": "x", "ca_file": "x"}), "/issuers/0/ca_file cannot be combined"},
		{of(object{"jwks_file": "/missing"}), "/missing"},
		{of(object{"ca_file": "/missing"}), "/missing"},
		{of(object{"ca_file": write(t, "ca", "x")}), "ca_file has no certificate"},
		{of(object{"jwks_file": write(t, "jwks", "{}")}), "key set: no RSA key"},
		{[]object{issuer, issuer}, "/issuers/1/issuer is given twice"},
		{[]object{issuer, other}, "/issuers/1/rules/0/owner begins with gitlab:"},
		{of(object{"rules": []object{rule, with(rule, object{"owner": "gitlab:{user_id}"})}}), "/issuers/0/rules/1/owner begins with"},
		{of(object{"rules": []object{rule, with(rule, object{"role": "reader"})}}), ""},
		{ruled(object{"match": nil}), "/issuers/0/rules/0/match must"},
		{ruled(object{"match": object{"a": ""}}), "/issuers/0/rules/0/match/a must"},
		{ruled(object{"match": object{"a": strings.Repeat("a", 257)}}), "/issuers/0/rules/0/match/a must"},
		{ruled(object{"match": object{"a": 1}}), "/issuers/0/rules/0/match/a"},
		{ruled(object{"role": nil}), "/issuers/0/rules/0/role is required"},
		{ruled(object{"role": "root"}), "/issuers/0/rules/0/role must"},
		{ruled(object{"scope": nil}), "/issuers/0/rules/0/scope is required"},
		{ruled(object{"scope": "[a]/b"}), "/issuers/0/rules/0/scope must"},
		{ruled(object{"held": -1}), "/issuers/0/rules/0/held must"},
		{ruled(object{"rate": 1e9}), "/issuers/0/rules/0/rate must"},
		{ruled(object{"owner": nil}), "/issuers/0/rules/0/owner is required"},
		{ruled(object{"owner": "{project_id}"}), "/issuers/0/rules/0/owner must"},
		{ruled(object{"owner": "gitlab-{project_id}:"}), "/issuers/0/rules/0/owner must begin"},
		{ruled(object{"owner": ":{project_id}"}), "/issuers/0/rules/0/owner must begin"},
		{ruled(object{"owner": "gitlab:{a}{b}"}), "/issuers/0/rules/0/owner must"},
		{ruled(object{"owner": "gitlab:{a"}), "/issuers/0/rules/0/owner must"},
		{ruled(object{"owner": "gitlab:{}"}), "/issuers/0/rules/0/owner must"},
		{ruled(object{"owner": "gitlab:a}"}), "/issuers/0/rules/0/owner must"},
		{ruled(object{"owner": "git lab:{a}"}), "/issuers/0/rules/0/owner must"},
		{match(gitHub, object{"repository_id": "74"}), ""},
		{match(gitHub, object{"repository_owner_id": "65", "ref": "*"}), ""},
		{match(gitHub+"/octo", object{"repository": "octo-org/octo-repo"}), "/issuers/0/rules/0/match must have one of repository_id"},
		{match(gitHub, object{"repository_id": "7*"}), "/issuers/0/rules/0/match must have one of"},
		{match(gitHub, object{"repository_id": json.RawMessage("null")}), "/issuers/0/rules/0/match must have one of"},
		{match(gitHub, object{"project_id": "74"}), "/issuers/0/rules/0/match must have one of"},
		{match("https://TOKEN.actions.githubusercontent.com.:443", object{"ref": "x"}), "/issuers/0/rules/0/match must have one of"},
		{match(gitLab, object{"project_id": "42"}), ""},
		{match(gitLab, object{"project_path": "a/b"}), "/issuers/0/rules/0/match must have one of project_id"},
	} {
		text, _ := json.Marshal(object{"issuers": c.issuers})
		_, _, err := start(t, Options{OIDCFile: write(t, "oidc.json", string(text))})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", text, err, c.want)
		}
	}
	for _, text := range []string{"", "[]", `{"issuers":[]} x`, `{"issuers":[],"issuers":[]}`, `{"issuer":[]}`} {
		if _, _, err := start(t, Options{OIDCFile: write(t, "oidc.json", text)}); err == nil {
			t.Errorf("%s is an OIDC file", text)
		}
	}
}

func TestOwnerAndMatch(t *testing.T) {
	for _, c := range []struct {
		template, claims, want string // want is empty if there is no owner
	}{
		{"gitlab:{id}", `{"id":"42"}`, "gitlab:42"},
		{"gitlab:{id}", `{"id":42}`, "gitlab:42"},
		{"gitlab:{id}", `{"id":9007199254740993}`, "gitlab:9007199254740993"},
		{"gitlab:{id}", `{"id":true}`, ""},
		{"gitlab:{id}", `{"id":null}`, ""},
		{"gitlab:{id}", `{"id":["42"]}`, ""},
		{"gitlab:{id}", `{"id":""}`, ""},
		{"gitlab:{id}", `{}`, ""},
		{"gitlab:{id}", `{"id":"a b"}`, ""},
		{"gitlab:{id}", `{"id":"a}b"}`, ""},
		{"gitlab:{id}", `{"id":"ä"}`, ""},
		{"gitlab:{id}", `{"id":"a\nb"}`, ""},
		{"g:{id}", `{"id":"` + strings.Repeat("a", 126) + `"}`, "g:" + strings.Repeat("a", 126)},
		{"g:{id}", `{"id":"` + strings.Repeat("a", 127) + `"}`, ""},
		{"g:{a}:{b}", `{"a":"x/y","b":"p:q"}`, "g:x/y:p:q"},
		{"g:{a}:{b}", `{"a":"x:y","b":"q"}`, ""},
		{"g:{a}/{b}/z", `{"a":"x","b":"y"}`, "g:x/y/z"},
		{"g:all", `{}`, "g:all"},
	} {
		var owner template
		var some claims
		if err := owner.UnmarshalText([]byte(c.template)); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(c.claims), &some); err != nil {
			t.Fatal(err)
		}
		if got, err := owner.owner(some); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s of %s: got %q, %v", c.template, c.claims, got, err)
		}
	}
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"refs/heads/*", "refs/heads/main", true},
		{"refs/heads/*", "refs/heads/a/b", false},
		{"*", "a/b", false},
		{"[ab]", "a", false},
		{"dependabot[bot]", "dependabot[bot]", true},
		{`a\*`, `a\x`, true},
		{`a\*`, "a*", false},
		{"v?", "v1", true},
		{"main", "MAIN", false},
	} {
		var g glob
		if err := g.UnmarshalText([]byte(c.pattern)); err != nil {
			t.Fatal(err)
		}
		value, _ := json.Marshal(c.text)
		if got := (rule{Match: map[string]glob{"x": g}}).matches(claims{"x": value}); got != c.want {
			t.Errorf("%s of %s: %t", c.pattern, c.text, got)
		}
		if (rule{Match: map[string]glob{"x": g, "y": g}}).matches(claims{"x": value}) {
			t.Errorf("%s of no claim matches", c.pattern)
		}
	}
	for _, value := range []string{"-1", "1e300", `"1"`, "null", ""} {
		if when, ok := (claims{"exp": jsontext.Value(value)}).time("exp"); ok {
			t.Errorf("%s is %s", value, when)
		}
	}
}
