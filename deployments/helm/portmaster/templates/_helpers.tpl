{{- define "portmaster.name" -}}
{{ if eq .Release.Name .Chart.Name }}{{ .Chart.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "portmaster.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portmaster.labels" -}}
{{ include "portmaster.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* "true" where the state is in a Redis, and empty where the only replica keeps it in itself. */ -}}
{{- define "portmaster.redis" -}}
{{- $redis := .Values.redis -}}
{{- if and $redis.url $redis.urlFrom }}{{ fail "redis.url and redis.urlFrom are two ways to say the same: set one of them" }}{{ end -}}
{{- if or $redis.url $redis.urlFrom }}true{{ end -}}
{{- end }}

{{- /* The files of callers, of tokensFrom and oidcFrom those that are set; empty where the server is open. */ -}}
{{- define "portmaster.callers" -}}
{{- $files := list -}}
{{- range $file := list "tokens" "oidc" -}}
{{- if get $.Values.auth (printf "%sFrom" $file) }}{{ $files = append $files $file }}{{ end -}}
{{- end -}}
{{- if and $files .Values.auth.open }}{{ fail "auth.open and auth.tokensFrom or auth.oidcFrom contradict each other" }}{{ end -}}
{{- if not (or $files .Values.auth.open) }}{{ fail "nobody may call: set auth.tokensFrom or auth.oidcFrom, or auth.open to let everybody do everything" }}{{ end -}}
{{- join " " $files -}}
{{- end }}

{{- /* The Host that a request to an open server may have: the pod's address, the Service's names and those of the values. */ -}}
{{- define "portmaster.hosts" -}}
{{- $name := include "portmaster.name" . -}}
{{- $in := printf "%s.%s" $name .Release.Namespace -}}
{{- concat (list "$(POD_IP)" $name $in (printf "%s.svc" $in) (printf "%s.svc.cluster.local" $in)) .Values.auth.hosts | join "," -}}
{{- end }}

{{- /* How many replicas there are at least. */ -}}
{{- define "portmaster.replicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.minReplicas }}{{ else }}{{ .Values.replicas }}{{ end -}}
{{- end }}

{{- /* The files that Redis needs, of passwordFrom, caFrom, certFrom and keyFrom those that are set. */ -}}
{{- define "portmaster.files" -}}
{{- $files := list -}}
{{- range $file := list "password" "ca" "cert" "key" -}}
{{- if get $.Values.redis (printf "%sFrom" $file) }}{{ $files = append $files $file }}{{ end -}}
{{- end -}}
{{- join " " $files -}}
{{- end }}
