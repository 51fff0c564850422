package check

import (
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rendered returns the only object of a kind that the chart makes with some values.
func rendered[Kind any](t *testing.T, values string) (found Kind) {
	t.Helper()
	objects, err := render(t, deployments, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if o, ok := object.(Kind); ok {
			found = o
		}
	}
	return found
}

// TestChartNetworkPolicy looks at who may call each of the two ports, and what the pods may call.
func TestChartNetworkPolicy(t *testing.T) {
	sameNamespace := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
	monitoring := []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{
		MatchLabels: map[string]string{"kubernetes.io/metadata.name": "monitoring"},
	}}}
	for values, want := range map[string]struct {
		callers map[string][]networkingv1.NetworkPolicyPeer // by port
		egress  []string                                    // the first port of each rule
	}{
		`{auth: {open: true}, replicas: 1}`: {map[string][]networkingv1.NetworkPolicyPeer{"http": sameNamespace, "ops": monitoring}, nil},
		`{auth: {open: true}, replicas: 1, networkPolicy: {from: [], opsFrom: []}}`: {
			map[string][]networkingv1.NetworkPolicyPeer{"http": nil}, nil},
		`{auth: {open: true}, redis: {url: "redis://redis:6379"}, networkPolicy: {opsFrom: [], egress: [{ports: [{port: 443, protocol: TCP}]}]}}`: {
			map[string][]networkingv1.NetworkPolicyPeer{"http": sameNamespace}, []string{"443", "53"}},
		`{auth: {open: true}, replicas: 1, networkPolicy: {opsFrom: [], egress: [{ports: [{port: 443, protocol: TCP}]}]}}`: {
			map[string][]networkingv1.NetworkPolicyPeer{"http": sameNamespace}, []string{"443"}},
	} {
		policy := rendered[*networkingv1.NetworkPolicy](t, values)
		callers := map[string][]networkingv1.NetworkPolicyPeer{}
		for _, rule := range policy.Spec.Ingress {
			callers[rule.Ports[0].Port.String()] = rule.From
		}
		var egress []string
		for _, rule := range policy.Spec.Egress {
			egress = append(egress, rule.Ports[0].Port.String())
		}
		if !reflect.DeepEqual(callers, want.callers) || !reflect.DeepEqual(egress, want.egress) {
			t.Errorf("with %s: callers %v, ports called %v; want %v", values, callers, egress, want)
		}
	}
}

// TestChartTLS looks for the files of the Secret where the settings say that they are.
func TestChartTLS(t *testing.T) {
	pod := rendered[*appsv1.Deployment](t, `{auth: {open: true}, replicas: 1, tls: {secret: web, clientCA: true}}`).Spec.Template.Spec
	files := map[string]string{}
	for _, e := range pod.Containers[0].Env {
		if variable, ok := strings.CutPrefix(e.Name, "PORTMASTER_TLS_"); ok {
			files[variable] = strings.TrimPrefix(e.Value, pod.Containers[0].VolumeMounts[0].MountPath+"/")
		}
	}
	want := map[string]string{"CERT_FILE": "tls.crt", "KEY_FILE": "tls.key", "CLIENT_CA_FILE": "ca.crt"}
	if secret := pod.Volumes[0].Secret.SecretName; secret != "web" || !reflect.DeepEqual(files, want) {
		t.Errorf("secret %s, files %v", secret, files)
	}
}
