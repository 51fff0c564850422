package check

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	kubejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

// valueSets are ways to install the chart, in YAML.
var valueSets = map[string]string{
	"a Redis":      `{redis: {url: "redis://redis:6379"}}`,
	"no Redis":     `{replicas: 1}`,
	"two replicas": `{replicas: 2, redis: {urlFrom: {name: redis, key: url}}, spread: DoNotSchedule, networkPolicy: {enabled: false}}`,
	"all that can be said": `{
		replicas: 5, image: {repository: registry.example/portmaster, tag: v1.2.3, pullPolicy: Always}, imagePullSecrets: [{name: registry}],
		redis: {url: "rediss://portmaster@redis:6380", passwordFrom: {name: redis, key: password}, caFrom: {name: tls, key: ca.crt},
			certFrom: {name: tls, key: tls.crt}, keyFrom: {name: tls, key: tls.key}},
		settings: {OFFER_TTL: 10m, REDIS_QUEUE: "1024", LOG_FORMAT: json}, shutdown: {delay: 20, timeout: 30},
		service: {type: LoadBalancer, port: 8080}, resources: {limits: {memory: 1Gi}},
		networkPolicy: {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ci}}}], redisPorts: [6380, 26379]},
		podAnnotations: {a: b}, podLabels: {c: d}, nodeSelector: {e: f}, tolerations: [{key: g, operator: Exists, effect: NoSchedule}]}`,
}

func TestChart(t *testing.T) {
	const deployment, policy = "helm/portmaster/templates/deployment.yaml", "helm/portmaster/templates/networkpolicy.yaml"
	holds(t, checkChart,
		mutant{"helm/portmaster/Chart.yaml", "version: 0.1.0", "version: one", "version"},
		mutant{"helm/portmaster/values.yaml", "replicas: 3", "replicas: three", "replicas"},
		mutant{"helm/portmaster/values.yaml", "replicas: 3", "replicas: 3\nreplica: 3", "replica"},
		mutant{deployment, "readOnlyRootFilesystem: true", "readonlyRootFilesystem: true", "readonlyRootFilesystem"},
		mutant{deployment, "enableServiceLinks: false", "enableServiceLinks: true", "service links"},
		mutant{deployment, "replicas: {{ .Values.replicas }}", `replicas: "{{ .Values.replicas }}"`, "replicas"},
		mutant{deployment, ".Values.shutdown.timeout 5", ".Values.shutdown.timeout", "grace"},
		mutant{deployment, "path: /readyz", "path: /livez", "readiness"},
		mutant{deployment, "drop: [ALL]", "drop: []", "restricted"},
		mutant{deployment, "type: Recreate", "type: RollingUpdate", "two stores"},
		mutant{policy, "port: http", "port: htttp", "htttp"},
		mutant{"helm/portmaster/templates/service.yaml", "targetPort: http", "targetPort: web", "web"},
		mutant{"helm/portmaster/templates/service.yaml", `"portmaster.selector" .`, `"portmaster.labels" .`, "selects"},
		mutant{"helm/portmaster/templates/poddisruptionbudget.yaml", "maxUnavailable: 1", "maxUnavailable: 1\n  minAvailable: 1", "PodDisruptionBudget"},
	)
}

// checkChart lints the chart and renders it with each set of values.
func checkChart(t *testing.T, dir string) error {
	var faults []error
	for name, text := range valueSets {
		objects, err := render(t, dir, text)
		if err == nil {
			err = checkObjects(objects)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("with %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// render does what helm lint and helm template do, and decodes the objects strictly by their kinds.
func render(t *testing.T, dir, text string) (objects []runtime.Object, err error) {
	t.Helper()
	folder := filepath.Join(dir, "helm/portmaster")
	values, err := common.ReadValues([]byte(strings.ReplaceAll(text, "\t", " ")))
	if err != nil {
		t.Fatal(err)
	}
	linted := lint.RunAll(folder, values, "ports")
	for _, message := range linted.Messages {
		if message.Severity >= support.WarningSev {
			return nil, message
		}
	}
	chart, err := loader.Load(folder)
	if err != nil {
		return nil, err
	}
	top, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "test", Namespace: "ports", IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, top)
	if err != nil {
		return nil, err
	}
	decoder := kubejson.NewSerializerWithOptions(kubejson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
		kubejson.SerializerOptions{Yaml: true, Strict: true})
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(file) != ".yaml" || strings.TrimSpace(files[file]) == "" {
			continue
		}
		object, _, err := decoder.Decode([]byte(files[file]), nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// checkObjects looks at what Kubernetes would only find out by running it.
func checkObjects(objects []runtime.Object) error {
	var deployment *appsv1.Deployment
	for _, object := range objects {
		if d, ok := object.(*appsv1.Deployment); ok {
			deployment = d
		}
	}
	if deployment == nil {
		return errors.New("there is no Deployment")
	}
	pod := deployment.Spec.Template
	faults := []error{checkPod(pod.Spec), selects("Deployment", deployment.Spec.Selector, pod)}
	for _, spread := range pod.Spec.TopologySpreadConstraints {
		faults = append(faults, selects("spread", spread.LabelSelector, pod))
	}
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.Service:
			faults = append(faults, selects("Service", &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, pod))
			for _, port := range o.Spec.Ports {
				faults = append(faults, hasPort(pod.Spec, port.TargetPort.String()))
			}
		case *policyv1.PodDisruptionBudget:
			faults = append(faults, selects("PodDisruptionBudget", o.Spec.Selector, pod))
			if o.Spec.MinAvailable != nil && o.Spec.MaxUnavailable != nil {
				faults = append(faults, errors.New("a PodDisruptionBudget has either minAvailable or maxUnavailable"))
			}
		case *networkingv1.NetworkPolicy:
			faults = append(faults, selects("NetworkPolicy", &o.Spec.PodSelector, pod))
			for _, rule := range o.Spec.Ingress {
				for _, port := range rule.Ports {
					faults = append(faults, hasPort(pod.Spec, port.Port.String()))
				}
			}
		}
	}
	embedded := !slices.ContainsFunc(pod.Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "PORTMASTER_REDIS_URL" })
	if embedded && (*deployment.Spec.Replicas != 1 || deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType) {
		faults = append(faults, errors.New("two stores would run side by side"))
	}
	return errors.Join(faults...)
}

// checkPod holds a pod to the restricted Pod Security Standard, and to how the server starts and stops.
func checkPod(pod corev1.PodSpec) error {
	var faults []error
	ok := func(holds bool, what string) {
		if !holds {
			faults = append(faults, errors.New(what))
		}
	}
	container := pod.Containers[0]
	own, all := container.SecurityContext, pod.SecurityContext
	ok(reflect.DeepEqual(own.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}) && !*own.AllowPrivilegeEscalation &&
		*own.ReadOnlyRootFilesystem && *all.RunAsNonRoot && *all.RunAsUser == 65532 &&
		all.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault && !*pod.AutomountServiceAccountToken, "the pod is not restricted")
	ok(pod.EnableServiceLinks != nil && !*pod.EnableServiceLinks, "service links are on")
	ok(container.LivenessProbe.HTTPGet.Path == "/livez", "the liveness probe does not ask /livez")
	ok(container.ReadinessProbe.HTTPGet.Path == "/readyz", "the readiness probe does not ask /readyz")

	var stops time.Duration
	for _, e := range container.Env {
		if e.Name == "PORTMASTER_SHUTDOWN_DELAY" || e.Name == "PORTMASTER_SHUTDOWN_TIMEOUT" {
			d, err := time.ParseDuration(e.Value)
			faults = append(faults, err)
			stops += d
		}
	}
	grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	ok(stops > 0 && grace > stops, "the grace period ends before the server does")
	ok(len(container.VolumeMounts) == len(pod.Volumes), "a volume is not mounted")
	return errors.Join(append(faults, hasPort(pod, container.ReadinessProbe.HTTPGet.Port.String()))...)
}

func hasPort(pod corev1.PodSpec, name string) error {
	for _, port := range pod.Containers[0].Ports {
		if port.Name == name {
			return nil
		}
	}
	return fmt.Errorf("the pod has no port %s", name)
}

func selects(who string, selector *metav1.LabelSelector, pod corev1.PodTemplateSpec) error {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err == nil && (s.Empty() || !s.Matches(labels.Set(pod.Labels))) {
		err = errors.New("it selects " + s.String() + ", and the pods are another")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	return nil
}

// What cannot work is refused, in words that say what to do.
func TestChartRefuses(t *testing.T) {
	for values, says := range map[string]string{
		`{}`:            "3 replicas need a Redis that they share: set redis.url or redis.urlFrom, or replicas to 1",
		`{replicas: 2}`: "2 replicas need a Redis",
		`{replicas: 0, redis: {url: "redis://redis:6379"}}`:                                    "/replicas",
		`{redis: {url: "localhost:6379"}}`:                                                     "/redis/url",
		`{redis: {url: "redis://redis:6379", urlFrom: {name: a, key: b}}}`:                     "redis.url and redis.urlFrom are two ways to say the same",
		`{redis: {url: "redis://redis:6379", caFrom: {name: a}}}`:                              "'key' required",
		`{replicas: 1, redis: {caFrom: {name: a, key: b}}}`:                                    "redis.caFrom is of no use without redis.url",
		`{redis: {url: "redis://redis:6379"}, settings: {SHUTDOWN_DELAY: 9s}}`:                 "'SHUTDOWN_DELAY'",
		`{redis: {url: "redis://redis:6379"}, settings: {REDIS_QUEUE: 1024}}`:                  "/settings/REDIS_QUEUE",
		`{redis: {url: "redis://redis:6379"}, networkPolicies: {enabled: false}}`:              "networkPolicies",
		`{redis: {url: "redis://redis:6379"}, networkPolicy: {enabled: true, redisPorts: []}}`: "/networkPolicy/redisPorts",
	} {
		if _, err := render(t, deployments, values); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("with %s the error is %v, and should say %q", values, err, says)
		}
	}
}
