package identity

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// issuerConfig is an issuer of the OIDC file.
type issuerConfig struct {
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	JWKSFile string `json:"jwks_file"` // its keys, in place of asking it
	CAFile   string `json:"ca_file"`   // certificates (PEM) to verify it with, in place of the system's
	Rules    []rule `json:"rules"`
}

// rule says what the callers are whose claims match. The first rule of an issuer that matches counts.
type rule struct {
	Match map[string]glob `json:"match"`
	Role  Role            `json:"role"`
	Scope Scope           `json:"scope"`
	Owner template        `json:"owner"`
	Held  int             `json:"held"`
	Rate  int             `json:"rate"`
}

// publicIssuers lists, by host, issuers at which everybody can get a token, and their claims that stay with whoever has them:
// a name of a project or an organisation can be registered again by somebody else when it is given up.
var publicIssuers = map[string][]string{
	"token.actions.githubusercontent.com": {"repository_id", "repository_owner_id"},
	"gitlab.com":                          {"project_id", "namespace_id"},
	"accounts.google.com":                 {"sub"},
	"agent.buildkite.com":                 {"organization_id", "pipeline_id"},
	"app.terraform.io":                    {"terraform_organization_id", "terraform_project_id", "terraform_workspace_id"},
}

// readOIDCFile reads the issuers that are trusted. Its error names the field that is wrong.
func readOIDCFile(name string) ([]issuerConfig, error) {
	content, err := readFile(name)
	if err != nil {
		return nil, err
	}
	var file struct {
		Issuers []issuerConfig `json:"issuers"`
	}
	if err := json.Unmarshal(content, &file, json.RejectUnknownMembers(true)); err != nil {
		if e, ok := errors.AsType[*json.SemanticError](err); ok && e.Err != nil {
			return nil, fmt.Errorf("%s %w", e.JSONPointer, e.Err)
		}
		return nil, err
	}
	owners := map[string]string{} // prefix to issuer and template
	issuers := map[string]bool{}
	for i, c := range file.Issuers {
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("/issuers/%d/%w", i, err)
		}
		if issuers[c.Issuer] {
			return nil, fmt.Errorf("/issuers/%d/issuer is given twice", i)
		}
		issuers[c.Issuer] = true
		for j, r := range c.Rules {
			if err := r.validate(c.publicIDs()); err != nil {
				return nil, fmt.Errorf("/issuers/%d/rules/%d/%w", i, j, err)
			}
			prefix, source := r.Owner.prefix(), c.Issuer+" "+r.Owner.text
			if other, found := owners[prefix]; found && other != source {
				return nil, fmt.Errorf("/issuers/%d/rules/%d/owner begins with %s as that of %s does; each must have a name of its own",
					i, j, prefix, other)
			}
			owners[prefix] = source
		}
	}
	return file.Issuers, nil
}

func (c issuerConfig) validate() error {
	u, err := url.Parse(c.Issuer)
	switch {
	case c.Issuer == "" || err != nil:
		return errors.New("issuer must be a URL, as in the claim iss")
	case c.JWKSFile == "" && (u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != ""):
		return errors.New("issuer must be https://HOST[/PATH], unless there is a jwks_file")
	case c.JWKSFile != "" && c.CAFile != "":
		return errors.New("ca_file cannot be combined with jwks_file: the issuer is not asked")
	case c.Audience == "":
		return errors.New("audience is required: that which a token must be issued for")
	case len(c.Rules) == 0:
		return errors.New("rules must have at least one rule")
	}
	return nil
}

// publicIDs returns the claims of which a rule must name one, or nil if the issuer is not public.
func (c issuerConfig) publicIDs() []string {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return nil
	}
	return publicIssuers[strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))]
}

func (r rule) validate(publicIDs []string) error {
	switch {
	case len(r.Match) == 0:
		return errors.New("match must have at least one claim")
	case publicIDs != nil && !slices.ContainsFunc(publicIDs, func(id string) bool { return r.Match[id].literal }):
		return fmt.Errorf("match must have one of %s, without wildcards: everybody can get a token of this issuer",
			strings.Join(publicIDs, ", "))
	case r.Role == "":
		return errors.New("role is required")
	case r.Scope == nil:
		return errors.New("scope is required")
	case r.Owner.text == "":
		return errors.New("owner is required")
	case r.Held < 0 || r.Held > maxHeld:
		return fmt.Errorf("held must be a whole number from 0 to %d", maxHeld)
	case r.Rate < 0 || r.Rate > maxRate:
		return fmt.Errorf("rate must be a whole number from 0 to %d", maxRate)
	}
	return nil
}

// matches reports whether every claim that the rule names is there and fits.
func (r rule) matches(c claims) bool {
	for name, g := range r.Match {
		if text, ok := c.text(name); !ok || !matches(g.pattern, text) {
			return false
		}
	}
	return true
}
