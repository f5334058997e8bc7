{{/* The Role of deploy/service.yaml, which has the reasons; a test holds them equal. */}}
{{- define "job-executor-service.jobRules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, watch, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
{{- end }}

{{- define "job-executor-service.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "job-executor-service.fullname" . }}]
  verbs: [get, list, watch, patch]
{{- end }}
