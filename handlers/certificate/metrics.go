package certificate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	endsDesc = prometheus.NewDesc("portmaster_tls_certificate_ends_in_seconds",
		"Time until the certificate in use ends, or the first of its chain; below 0 once it has ended.", nil, nil)
	brokenDesc = prometheus.NewDesc("portmaster_tls_files_broken",
		"1 if the TLS files hold something that cannot be used, so that what they held before stays in use; otherwise 0.", nil, nil)
	failedDesc = prometheus.NewDesc("portmaster_tls_handshakes_failed_total",
		"TLS handshakes that failed, such as those of clients without a certificate that is required.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *Certificate) Describe(ch chan<- *prometheus.Desc) {
	ch <- endsDesc
	ch <- brokenDesc
	ch <- failedDesc
}

// Collect implements prometheus.Collector.
func (c *Certificate) Collect(ch chan<- prometheus.Metric) {
	broken := 0.0
	if c.broken.Load() {
		broken = 1
	}
	ch <- prometheus.MustNewConstMetric(endsDesc, prometheus.GaugeValue, time.Until(c.inUse.Load().ends).Seconds())
	ch <- prometheus.MustNewConstMetric(brokenDesc, prometheus.GaugeValue, broken)
	ch <- prometheus.MustNewConstMetric(failedDesc, prometheus.CounterValue, float64(c.failed.Load()))
}
