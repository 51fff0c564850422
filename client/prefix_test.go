package client_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"portmaster/client"
)

// behindPrefix returns a Client of a proxy that serves a server below /ports, and says so in a header if it has a value.
func behindPrefix(t *testing.T, server, says string) *client.Client {
	target, err := url.Parse(server)
	must(t, err)
	proxy := httptest.NewServer(http.StripPrefix("/ports", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if says != "" {
				r.Out.Header.Set("X-Forwarded-Prefix", says)
			}
		},
		ModifyResponse: func(response *http.Response) error {
			if link := response.Header.Get("Link"); link != "" && !strings.HasPrefix(link, "<"+says+"/v1/services/ci/ports?") {
				t.Errorf("the next page is %s", link)
			}
			return nil
		},
	}))
	t.Cleanup(proxy.Close)
	return newClient(t, proxy.URL+"/ports", client.Options{})
}
