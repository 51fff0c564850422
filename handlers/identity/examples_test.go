package identity

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The claims that the three send, as their documentation shows them. Times and issuer are the test's.
var (
	gitHubClaims = object{
		"jti": "c4e6a6ff-3bb1-4f2f-9d9a-3a9a6ac2d6a3", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod",
		"ref": "refs/heads/main", "sha": "3f2d1c6c0bd3c0b3b0aef2a1e6c8e8a4c5d6e7f8", "repository": "octo-org/octo-repo",
		"repository_owner": "octo-org", "actor_id": "12", "repository_visibility": "private", "repository_id": "74",
		"repository_owner_id": "65", "run_id": "9876543210", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted",
		"actor": "octocat", "workflow": "ci", "head_ref": "", "base_ref": "", "event_name": "push", "ref_type": "branch",
		"ref_protected": "true", "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
	}
	gitLabClaims = object{
		"jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b", "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
		"namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "developer",
		"user_identities": []object{{"provider": "github", "extern_uid": "2435223452345"}}, "pipeline_id": "574",
		"pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main",
		"ref_protected": "true", "groups_direct": []string{"my-group"}, "environment": "test", "environment_protected": "false",
		"deployment_tier": "testing", "environment_action": "start", "runner_id": 1, "runner_environment": "self-hosted",
		"sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "public",
		"ci_config_ref_uri": "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
		"ci_config_sha":     "714a629c0b401fdce83e847fc9589983fc6f46bc",
	}
	kubernetesClaims = object{
		"jti": "aed34954-b33a-4142-b1ec-389d6bbb4936", "sub": "system:serviceaccount:builds:runner", "kubernetes.io": object{
			"namespace": "builds", "node": object{"name": "127.0.0.1", "uid": "58456cb0-dd00-45ed-b797-5578fdceaced"},
			"pod":            object{"name": "job-1", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
			"serviceaccount": object{"name": "runner", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"}, "warnafter": 1700081020,
		},
	}
)

// TestCISystems runs the OIDC file of README.md against issuers that send the claims of the real ones. Only the issuer is
// another: that of the test, in place of the public one.
func TestCISystems(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```json\n")
	example, _, _ = strings.Cut(example, "```")
	if _, err := readOIDCFile(write(t, "oidc.json", example)); err != nil {
		t.Fatal(err)
	}
	issuer := map[string]*fakeIssuer{}
	for name, public := range map[string]string{
		"github":     "https://token.actions.githubusercontent.com",
		"gitlab":     "https://gitlab.com",
		"kubernetes": "https://kubernetes.default.svc",
	} {
		issuer[name] = newIssuer(t, jwk(name, jose.RS256, rsaKey()))
		if !strings.Contains(example, `"issuer": "`+public+`"`) {
			t.Fatalf("README.md has no %s", public)
		}
		example = strings.Replace(example, `"`+public+`"`, `"`+issuer[name].URL+`"`, 1)
	}
	// All issuers of the test have one certificate.
	example = strings.ReplaceAll(example, `"audience"`, `"ca_file": "`+issuer["gitlab"].caFile+`", "audience"`)
	example = strings.Replace(example, `"ca_file": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",`, "", 1)
	a, _, err := start(t, Options{OIDCFile: write(t, "oidc.json", example)})
	if err != nil {
		t.Fatal(err)
	}
	send := func(name string, claims, change object) string {
		now := time.Now().Unix()
		claims = maps.Clone(claims)
		maps.Copy(claims, object{"iss": issuer[name].URL, "aud": "portmaster", "iat": now, "nbf": now - 5, "exp": now + 3600})
		return sign(t, jose.RS256, rsaKey(), name, with(claims, change))
	}
	for _, c := range []struct {
		issuer string
		claims object
		change object
		owner  string
		role   Role
		scope  string
	}{
		{"github", gitHubClaims, nil, "github:74", Client, "default/ci-*"},
		{"gitlab", gitLabClaims, nil, "gitlab:20", Operator, "default/*"},
		{"gitlab", gitLabClaims, object{"ref_protected": "false", "ref": "x"}, "gitlab:20", Client, "default/ci-*"},
		{"kubernetes", kubernetesClaims, object{"aud": []string{"portmaster"}},
			"k8s:system:serviceaccount:builds:runner", Client, "builds/*"},
	} {
		p := accepts(t, a, send(c.issuer, c.claims, c.change))
		if p.Owner != c.owner || p.Role != c.role || p.Scope.String() != c.scope {
			t.Errorf("%s: got %+v", c.issuer, p)
		}
	}
	for _, c := range []struct {
		issuer string
		claims object
		change object
	}{
		{"github", gitHubClaims, object{"repository_owner_id": "66"}}, // the name was registered again
		{"github", gitHubClaims, object{"aud": "https://github.com/octo-org"}},
		{"gitlab", gitLabClaims, object{"namespace_id": "73"}},
		{"gitlab", gitLabClaims, object{"exp": time.Now().Unix() + 30*86400}},
		{"kubernetes", kubernetesClaims, object{"sub": "system:serviceaccount:default:runner"}},
		{"kubernetes", kubernetesClaims, object{"aud": []string{"https://kubernetes.default.svc"}}},
		{"kubernetes", gitLabClaims, object{"sub": nil}},
	} {
		refuses(t, a, "Bearer "+send(c.issuer, c.claims, c.change))
	}
}
