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

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	kubejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// valueSets are ways to install the chart, in YAML.
var valueSets = map[string]string{
	"a Redis":  `{redis: {url: "redis://redis:6379"}, auth: {open: true, hosts: [ports.example]}}`,
	"no Redis": `{replicas: 1, auth: {tokensFrom: {name: a, key: tokens}}}`,
	"autoscaling": `{auth: {oidcFrom: {name: a, key: oidc.json}}, redis: {url: "redis://redis:6379"}, autoscaling: {enabled: true, minReplicas: 2, maxReplicas: 6, cpu: 50},
		serviceMonitor: {enabled: true, interval: 30s, labels: {release: prometheus}},
		topologySpreadConstraints: [{topologyKey: rack, maxSkew: 2, whenUnsatisfiable: DoNotSchedule}]}`,
	"two replicas": `{auth: {open: true}, replicas: 2, redis: {urlFrom: {name: redis, key: url}}, spread: DoNotSchedule, networkPolicy: {enabled: false}}`,
	"TLS":          `{auth: {open: true}, replicas: 1, tls: {secret: portmaster-tls, clientCA: true}, networkPolicy: {from: [], opsFrom: [], egress: [{ports: [{port: 443, protocol: TCP}]}]}}`,
	"all that can be said": `{
		replicas: 5, image: {repository: registry.example/portmaster, tag: v1.2.3, pullPolicy: Always}, imagePullSecrets: [{name: registry}],
		auth: {tokensFrom: {name: a, key: tokens}, oidcFrom: {name: b, key: oidc.json}},
		redis: {url: "rediss://portmaster@redis:6380", passwordFrom: {name: redis, key: password}, caFrom: {name: tls, key: ca.crt},
			certFrom: {name: tls, key: tls.crt}, keyFrom: {name: tls, key: tls.key}},
		settings: {OFFER_TTL: 10m, REDIS_QUEUE: "1024", LOG_FORMAT: json}, shutdown: {delay: 20, timeout: 30},
		service: {type: LoadBalancer, port: 8080}, resources: {limits: {memory: 1Gi}},
		networkPolicy: {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ci}}}], redisPorts: [6380, 26379],
			opsFrom: [{podSelector: {matchLabels: {app: prometheus}}}], egress: [{ports: [{port: 443, protocol: TCP}]}]}, tls: {secret: portmaster-tls},
		podAnnotations: {a: b}, podLabels: {c: d}, nodeSelector: {e: f}, tolerations: [{key: g, operator: Exists, effect: NoSchedule}]}`,
}

func TestChart(t *testing.T) {
	const templates = "helm/portmaster/templates/"
	holds(t, checkChart,
		mutant{"helm/portmaster/Chart.yaml", "version: 0.2.0", "version: one", "version"},
		mutant{templates + "deployment.yaml", "readOnlyRootFilesystem: true", "readonlyRootFilesystem: true", "readonlyRootFilesystem"},
		mutant{templates + "deployment.yaml", "drop: [ALL]", "drop: []", "restricted"},
		mutant{templates + "deployment.yaml", ".Values.shutdown.timeout 5", ".Values.shutdown.timeout", "grace"},
		mutant{templates + "service.yaml", "targetPort: http", "targetPort: web", "web"},
		mutant{templates + "service.yaml", `"portmaster.selector" .`, `"portmaster.labels" .`, "selects"},
		mutant{templates + "horizontalpodautoscaler.yaml", `name: {{ include "portmaster.name" $ }}` + "\n  minReplicas", "name: portmaster\n  minReplicas", "scales another"},
		mutant{templates + "servicemonitor.yaml", "targetPort: ops", "targetPort: metrics", "no port metrics"},
		mutant{templates + "deployment.yaml", "path: /livez, port: ops", "path: /livez, port: http", "a flood"},
		mutant{templates + "networkpolicy.yaml", "{port: ops,", "{port: operators,", "no port operators"},
		mutant{templates + "servicemonitor.yaml", "jobLabel: app.kubernetes.io/name", "jobLabel: helm.sh/chart", "job"},
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
	kinds := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(kinds), monitoringv1.AddToScheme(kinds)); err != nil {
		t.Fatal(err)
	}
	decoder := kubejson.NewSerializerWithOptions(kubejson.DefaultMetaFactory, kinds, kinds,
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
	var service *corev1.Service
	for _, object := range objects {
		switch o := object.(type) {
		case *appsv1.Deployment:
			deployment = o
		case *corev1.Service:
			service = o
		}
	}
	if deployment == nil || service == nil {
		return errors.New("there is no Deployment, or no Service")
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
			if p := o.Spec.UnhealthyPodEvictionPolicy; p == nil || *p != policyv1.AlwaysAllow {
				faults = append(faults, errors.New("a node cannot be drained while Redis is away"))
			}
		case *autoscalingv2.HorizontalPodAutoscaler:
			faults = append(faults, checkScaler(o, deployment))
		case *monitoringv1.ServiceMonitor:
			faults = append(faults, checkMonitor(o, service, pod))
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

// checkScaler holds an autoscaler to the Deployment that it scales.
func checkScaler(scaler *autoscalingv2.HorizontalPodAutoscaler, deployment *appsv1.Deployment) error {
	var faults []error
	if target := scaler.Spec.ScaleTargetRef; target.Kind != "Deployment" || target.APIVersion != "apps/v1" || target.Name != deployment.Name {
		faults = append(faults, fmt.Errorf("the autoscaler scales another: %v", target))
	}
	if deployment.Spec.Replicas != nil {
		faults = append(faults, errors.New("the Deployment has replicas and an autoscaler, which each upgrade would undo"))
	}
	return errors.Join(faults...)
}

// checkMonitor holds a ServiceMonitor to the Service that it finds, and to the alerts.
func checkMonitor(monitor *monitoringv1.ServiceMonitor, service *corev1.Service, pod corev1.PodTemplateSpec) error {
	var faults []error
	s, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	if err != nil || s.Empty() || !s.Matches(labels.Set(service.Labels)) {
		faults = append(faults, fmt.Errorf("the ServiceMonitor finds no Service: %v", err))
	}
	if job := service.Labels[monitor.Spec.JobLabel]; job != "portmaster" {
		faults = append(faults, fmt.Errorf("the alerts are for the job portmaster, and it is %q", job))
	}
	for _, endpoint := range monitor.Spec.Endpoints {
		faults = append(faults, hasPort(pod.Spec, endpoint.TargetPort.String())) // it need not be one of the Service, which may be public
	}
	if _, annotated := pod.Annotations["prometheus.io/scrape"]; annotated {
		faults = append(faults, errors.New("the pods would be scraped twice"))
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
	for _, probe := range []*corev1.Probe{container.LivenessProbe, container.ReadinessProbe} {
		ok(probe.HTTPGet.Port.String() == "ops", "a flood of connections makes a probe fail")
	}

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
	return errors.Join(append(faults, hasPort(pod, "ops"))...)
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

// TestChartOptions renders the chart with its options off, as they are, and on.
func TestChartOptions(t *testing.T) {
	const redis = `auth: {open: true}, redis: {url: "redis://redis:6379"}`
	find := func(t *testing.T, values string) (found struct {
		deployment *appsv1.Deployment
		scaler     *autoscalingv2.HorizontalPodAutoscaler
		monitor    *monitoringv1.ServiceMonitor
		budget     *policyv1.PodDisruptionBudget
		ports      []string // that the NetworkPolicy lets pods call
	}) {
		objects, err := render(t, deployments, values)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range objects {
			switch o := object.(type) {
			case *appsv1.Deployment:
				found.deployment = o
			case *autoscalingv2.HorizontalPodAutoscaler:
				found.scaler = o
			case *monitoringv1.ServiceMonitor:
				found.monitor = o
			case *policyv1.PodDisruptionBudget:
				found.budget = o
			case *networkingv1.NetworkPolicy:
				for _, port := range o.Spec.Egress[0].Ports {
					found.ports = append(found.ports, port.Port.String())
				}
			case *corev1.Secret:
				t.Error("the chart makes a Secret")
			}
		}
		return found
	}
	equal := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	t.Run("off", func(t *testing.T) {
		o := find(t, `{`+redis+`}`)
		equal(t, "autoscaler and ServiceMonitor", o.scaler == nil && o.monitor == nil, true)
		equal(t, "replicas", *o.deployment.Spec.Replicas, int32(3))
		equal(t, "ports", o.ports, []string{"53", "53", "6379", "26379"})
		equal(t, "disruption budget", *o.budget.Spec.UnhealthyPodEvictionPolicy, policyv1.AlwaysAllow)
		equal(t, "scraped by annotation", o.deployment.Spec.Template.Annotations["prometheus.io/scrape"], "true")
		var keys []string
		for _, c := range o.deployment.Spec.Template.Spec.TopologySpreadConstraints {
			keys = append(keys, c.TopologyKey)
		}
		equal(t, "spread by", keys, []string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"})
	})
	t.Run("autoscaling", func(t *testing.T) {
		o := find(t, `{`+redis+`, autoscaling: {enabled: true, minReplicas: 1}}`)
		equal(t, "replicas", o.deployment.Spec.Replicas == nil, true)
		equal(t, "at least", *o.scaler.Spec.MinReplicas, int32(1))
		equal(t, "at most", o.scaler.Spec.MaxReplicas, int32(9))
		equal(t, "CPU", *o.scaler.Spec.Metrics[0].Resource.Target.AverageUtilization, int32(70))
		equal(t, "a budget for the only replica", o.budget != nil, false)
		o = find(t, `{replicas: 1, `+redis+`, autoscaling: {enabled: true, minReplicas: 2}}`)
		equal(t, "a budget for two", o.budget != nil, true)
	})
	t.Run("serviceMonitor", func(t *testing.T) {
		o := find(t, `{`+redis+`, serviceMonitor: {enabled: true, labels: {release: prometheus}}, podAnnotations: {a: b}}`)
		equal(t, "found by", o.monitor.Labels["release"], "prometheus")
		equal(t, "endpoints", o.monitor.Spec.Endpoints, []monitoringv1.Endpoint{{TargetPort: new(intstr.FromString("ops")), Path: "/metrics", Interval: "15s"}})
		equal(t, "annotations", o.deployment.Spec.Template.Annotations, map[string]string{"a": "b"})
	})
	t.Run("topologySpreadConstraints", func(t *testing.T) {
		o := find(t, `{`+redis+`, topologySpreadConstraints: [{topologyKey: rack, maxSkew: 2, whenUnsatisfiable: DoNotSchedule},
			{topologyKey: row, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app.kubernetes.io/name: portmaster}}}]}`)
		own := &metav1.LabelSelector{MatchLabels: o.deployment.Spec.Selector.MatchLabels}
		equal(t, "constraints", o.deployment.Spec.Template.Spec.TopologySpreadConstraints, []corev1.TopologySpreadConstraint{
			{TopologyKey: "rack", MaxSkew: 2, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: own},
			{TopologyKey: "row", MaxSkew: 1, WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": "portmaster"}}},
		})
	})
	t.Run("existing secrets", func(t *testing.T) {
		o := find(t, `{auth: {open: true}, redis: {urlFrom: {name: a, key: url}, passwordFrom: {name: b, key: pass}, caFrom: {name: c, key: ca}}}`)
		pod := o.deployment.Spec.Template.Spec
		env := map[string]corev1.EnvVar{}
		for _, e := range pod.Containers[0].Env {
			env[e.Name] = e
		}
		equal(t, "URL", env["PORTMASTER_REDIS_URL"].ValueFrom.SecretKeyRef,
			&corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}, Key: "url"})
		for i, file := range []struct{ variable, secret, key, path string }{
			{"PORTMASTER_REDIS_PASSWORD_FILE", "b", "pass", "password"}, {"PORTMASTER_REDIS_CA_FILE", "c", "ca", "ca"},
		} {
			source := pod.Volumes[0].Projected.Sources[i].Secret
			equal(t, file.variable, env[file.variable].Value, pod.Containers[0].VolumeMounts[0].MountPath+"/"+file.path)
			equal(t, file.path, []string{source.Name, source.Items[0].Key, source.Items[0].Path}, []string{file.secret, file.key, file.path})
		}
	})
}

// TestChartCallers renders the chart for callers with tokens and OIDC, and for everybody.
func TestChartCallers(t *testing.T) {
	pod := func(auth string) (corev1.PodSpec, map[string]string) {
		objects, err := render(t, deployments, `{replicas: 1, auth: `+auth+`}`)
		if err != nil {
			t.Fatal(err)
		}
		env := map[string]string{}
		for _, object := range objects {
			if d, ok := object.(*appsv1.Deployment); ok {
				for _, e := range d.Spec.Template.Spec.Containers[0].Env {
					env[e.Name] = e.Value
				}
				return d.Spec.Template.Spec, env
			}
		}
		t.Fatal("no Deployment")
		return corev1.PodSpec{}, nil
	}
	spec, env := pod(`{tokensFrom: {name: a, key: tokens.txt}, oidcFrom: {name: b, key: oidc.json}}`)
	for i, file := range []struct{ name, secret, key string }{{"tokens", "a", "tokens.txt"}, {"oidc", "b", "oidc.json"}} {
		source := spec.Volumes[0].Projected.Sources[i].Secret
		path := spec.Containers[0].VolumeMounts[0].MountPath + "/" + source.Items[0].Path
		if env["PORTMASTER_AUTH_"+strings.ToUpper(file.name)+"_FILE"] != path || source.Name != file.secret || source.Items[0].Key != file.key {
			t.Errorf("%s: %v, %v", file.name, env, source)
		}
	}
	if _, set := env["PORTMASTER_AUTH"]; set {
		t.Errorf("with tokens, PORTMASTER_AUTH is set: %v", env)
	}
	_, env = pod(`{open: true, hosts: [ports.example]}`)
	const hosts = "$(POD_IP),test-portmaster,test-portmaster.ports,test-portmaster.ports.svc,test-portmaster.ports.svc.cluster.local,ports.example"
	if env["PORTMASTER_AUTH"] != "none" || env["PORTMASTER_HOSTS"] != hosts {
		t.Errorf("open: %v", env)
	}
}
