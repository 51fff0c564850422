package check

import (
	"strings"
	"testing"
)

// What cannot work is refused, in words that say what to do.
func TestChartRefuses(t *testing.T) {
	for values, says := range map[string]string{
		`{replicas: 1}`: "nobody may call: set auth.tokensFrom or auth.oidcFrom, or auth.open",
		`{replicas: 1, auth: {open: true, tokensFrom: {name: a, key: b}}}`: "contradict each other",
		`{replicas: 1, auth: {open: true, hosts: ["ports.example,*"]}}`:    "/auth/hosts/0",
		`{replicas: 1, auth: {tokensFrom: {name: a}}}`:                     "'key' required",
		`{replicas: 1, auth: {open: true}, settings: {AUTH: none}}`:        "'AUTH'",
		`{}`:            "3 replicas need a Redis that they share: set redis.url or redis.urlFrom, or replicas to 1",
		`{replicas: 2}`: "2 replicas need a Redis",
		`{replicas: 0, redis: {url: "redis://redis:6379"}}`:                                                    "/replicas",
		`{redis: {url: "localhost:6379"}}`:                                                                     "/redis/url",
		`{redis: {url: "redis://redis:6379", urlFrom: {name: a, key: b}}}`:                                     "redis.url and redis.urlFrom are two ways to say the same",
		`{redis: {url: "redis://redis:6379", caFrom: {name: a}}}`:                                              "'key' required",
		`{autoscaling: {enabled: true}}`:                                                                       "autoscaling needs a Redis that the replicas share",
		`{redis: {url: "redis://redis:6379"}, autoscaling: {enabled: true, maxReplicas: 2}}`:                   "autoscaling.minReplicas is above autoscaling.maxReplicas",
		`{redis: {url: "redis://redis:6379"}, autoscaling: {enabled: true}, resources: {requests: {cpu: ""}}}`: "autoscaling needs resources.requests.cpu",
		`{redis: {url: "redis://redis:6379"}, autoscaling: {enable: true}}`:                                    "'enable'",
		`{redis: {url: "redis://redis:6379"}, serviceMonitor: {interval: often}}`:                              "/serviceMonitor/interval",
		`{redis: {url: "redis://redis:6379"}, topologySpreadConstraints: [{maxSkew: 1}]}`:                      "/topologySpreadConstraints/0",
		`{replicas: 1, redis: {caFrom: {name: a, key: b}}}`:                                                    "redis.caFrom is of no use without redis.url",
		`{redis: {url: "redis://redis:6379"}, settings: {SHUTDOWN_DELAY: 9s}}`:                                 "'SHUTDOWN_DELAY'",
		`{replicas: 1, auth: {open: true}, tls: {clientCA: true}}`:                                             "tls.clientCA is of no use without tls.secret",
		`{redis: {url: "redis://redis:6379"}, settings: {REDIS_QUEUE: 1024}}`:                                  "/settings/REDIS_QUEUE",
		`{redis: {url: "redis://redis:6379"}, networkPolicies: {enabled: false}}`:                              "networkPolicies",
		`{redis: {url: "redis://redis:6379"}, networkPolicy: {enabled: true, redisPorts: []}}`:                 "/networkPolicy/redisPorts",
	} {
		if _, err := render(t, deployments, values); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("with %s the error is %v, and should say %q", values, err, says)
		}
	}
}
