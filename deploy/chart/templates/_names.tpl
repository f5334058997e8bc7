{{/* Names and labels as those of 0.2.5: the selector of a Deployment cannot be changed by an upgrade. */}}
{{- define "job-executor-service.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Also the managed-by label of the Jobs and the name of the Lease: it tells releases of one namespace apart. */}}
{{- define "job-executor-service.fullname" -}}
{{- if not (hasKey .Values "settings") }}
{{- fail "the chart's own values are missing: upgrade with a values file or --reset-then-reuse-values, not with --reuse-values" }}
{{- end }}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "job-executor-service.selectorLabels" -}}
app.kubernetes.io/name: {{ include "job-executor-service.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "job-executor-service.labels" -}}
{{ include "job-executor-service.selectorLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "job-executor-service.serviceAccountName" -}}
{{- $default := .Values.serviceAccount.create | ternary (include "job-executor-service.fullname" .) "default" }}
{{- .Values.serviceAccount.name | default $default }}
{{- end }}

{{- define "job-executor-service.jobServiceAccountName" -}}
{{- $account := .Values.jobConfig.serviceAccount }}
{{- $own := printf "%s-%s" (include "job-executor-service.fullname" .) $account.name }}
{{- $account.create | ternary $own $account.name }}
{{- end }}
