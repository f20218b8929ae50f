{{- define "drakkar.name" -}}
{{- .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "drakkar.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "drakkar.operator" -}}
{{ include "drakkar.fullname" . }}-operator
{{- end -}}

{{- define "drakkar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "drakkar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "drakkar.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "drakkar.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: drakkar
{{- end -}}

{{/* The same for another component: dict "root" . "component" NAME. */}}
{{- define "drakkar.selectorLabelsOf" -}}
app.kubernetes.io/name: {{ include "drakkar.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "drakkar.labelsOf" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "drakkar.selectorLabelsOf" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: drakkar
{{- end -}}

{{- define "drakkar.server" -}}
{{ include "drakkar.fullname" . }}-server
{{- end -}}

{{- define "drakkar.devices" -}}
{{ include "drakkar.fullname" . }}-devices
{{- end -}}

{{/* repository with the digest, else the tag: dict "root" . "image" VALUES. */}}
{{- define "drakkar.imageOf" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Replicas prefer different nodes unless values say otherwise:
dict "affinity" VALUES "replicas" N "labels" LABELS. */}}
{{- define "drakkar.affinityOf" -}}
{{- if .affinity -}}
affinity:
  {{- toYaml .affinity | nindent 2 }}
{{- else if gt (int .replicas) 1 -}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- .labels | nindent 14 }}
{{- end -}}
{{- end -}}

{{- define "drakkar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "drakkar.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What the operator does in the namespaces it serves. */}}
{{- define "drakkar.workloadRules" -}}
- apiGroups: [drakkar.dev]
  resources: [trainingjobs]
  verbs: [get, list, watch, delete] # delete: ttlSecondsAfterFinished
- apiGroups: [drakkar.dev]
  resources: [trainingjobs/status]
  verbs: [update, patch] # patch: the release before, during an upgrade
- apiGroups: [drakkar.dev]
  resources: [trainingjobs/finalizers]
  verbs: [update] # owner references with blockOwnerDeletion
- apiGroups: [drakkar.dev]
  resources: [inferenceservices]
  verbs: [get, list, watch]
- apiGroups: [drakkar.dev]
  resources: [inferenceservices/status]
  verbs: [update, patch] # patch: the release before, during an upgrade
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch, delete] # delete: what a deleted job of the same name left
- apiGroups: [apps]
  resources: [deployments] # routers of services
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* POST through the API server's proxy is the verb create. */}}
{{- define "drakkar.planRules" -}}
- apiGroups: [""]
  resources: [services/proxy]
  resourceNames: ["{{ include "drakkar.operator" . }}:plan"]
  verbs: [create]
{{- end -}}

{{- define "drakkar.debugRules" -}}
- apiGroups: [""]
  resources: [services/proxy]
  resourceNames: ["{{ include "drakkar.operator" . }}:debug"]
  verbs: [get]
{{- end -}}

{{/* Who scrapes the release's own namespace, and the pod of `helm test`. */}}
{{- define "drakkar.metricsPeers" -}}
{{- if .Values.networkPolicy.from -}}
{{- toYaml .Values.networkPolicy.from }}
- podSelector:
    matchLabels:
      {{- include "drakkar.selectorLabelsOf" (dict "root" . "component" "test") | nindent 6 }}
{{- else -}}
- podSelector: {}
{{- end -}}
{{- end -}}
