{{/* Plain values, by the names of their variables; those that are empty are not set. */}}
{{- define "job-executor-service.settings" -}}
{{- $jobs := .Values.jobConfig }}
{{- $resources := $jobs.resources | default dict }}
CONFIGURATION_SERVICE: {{ include "job-executor-service.configurationService" . | quote }}
KEPTN_EVENT_ENDPOINT: http://localhost:8081/event
KEPTN_API_TOKEN_SECRET: {{ include "job-executor-service.secretName" . }}
FULL_DEPLOYMENT_NAME: {{ include "job-executor-service.fullname" . }}
DEFAULT_JOB_SERVICE_ACCOUNT: {{ include "job-executor-service.jobServiceAccountName" . | quote }}
DEFAULT_RESOURCE_LIMITS_CPU: {{ dig "limits" "cpu" "" $resources | quote }}
DEFAULT_RESOURCE_LIMITS_MEMORY: {{ dig "limits" "memory" "" $resources | quote }}
DEFAULT_RESOURCE_REQUESTS_CPU: {{ dig "requests" "cpu" "" $resources | quote }}
DEFAULT_RESOURCE_REQUESTS_MEMORY: {{ dig "requests" "memory" "" $resources | quote }}
ALLOWED_IMAGE_LIST: {{ join "," $jobs.allowedImageList | quote }}
ALLOWED_NAMESPACES: {{ join "," $jobs.allowedNamespaces | quote }}
ALLOWED_SERVICE_ACCOUNTS: {{ join "," $jobs.allowedServiceAccounts | quote }}
ALLOWED_SECRETS: {{ join "," $jobs.allowedSecrets | quote }}
ALLOWED_VOLUMES: {{ join "," $jobs.allowedVolumes | quote }}
ALLOW_PRIVILEGED_JOBS: {{ $jobs.allowPrivilegedJobs | quote }}
TASK_DEADLINE_SECONDS: {{ int64 $jobs.taskDeadlineSeconds | quote }}
{{- with .Values.otlp.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
OTEL_SERVICE_NAME: {{ $.Values.otlp.serviceName | default (include "job-executor-service.fullname" $) | quote }}
{{- end }}
{{- if include "job-executor-service.remote" . }}
{{ include "job-executor-service.gateway" . }}
{{- end }}
{{- end }}

{{/* What the service and its distributor both need to know of the gateway, without secrets. */}}
{{- define "job-executor-service.gateway" -}}
{{- $api := .Values.remoteControlPlane.api }}
KEPTN_API_ENDPOINT: {{ include "job-executor-service.endpoint" . | quote }}
HTTP_SSL_VERIFY: {{ $api.apiValidateTls | quote }}
{{- if eq $api.authMode "oauth" }}
OAUTH_CLIENT_ID: {{ $api.oauth.clientId | quote }}
OAUTH_DISCOVERY: {{ $api.oauth.clientDiscovery | quote }}
OAUTH_TOKEN_URL: {{ $api.oauth.tokenUrl | quote }}
OAUTH_SCOPES: {{ join "," $api.oauth.scopes | quote }}
{{- end }}
{{- end }}

{{- define "job-executor-service.gatewaySecrets" -}}
{{- if include "job-executor-service.remote" . }}
{{- $oauth := eq .Values.remoteControlPlane.api.authMode "oauth" }}
- name: KEPTN_API_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ include "job-executor-service.secretName" . }}, key: token, optional: {{ $oauth }}}
{{- if $oauth }}
- name: OAUTH_CLIENT_SECRET
  valueFrom:
    secretKeyRef: {name: {{ include "job-executor-service.secretName" . }}, key: oauth_client_secret}
{{- end }}
{{- end }}
{{- end }}

{{- define "job-executor-service.distributorSettings" -}}
{{- $distributor := .Values.distributor }}
PUBSUB_TOPIC: {{ include "job-executor-service.topics" . | quote }}
PUBSUB_RECIPIENT: 127.0.0.1
PROJECT_FILTER: {{ $distributor.projectFilter | quote }}
STAGE_FILTER: {{ $distributor.stageFilter | quote }}
SERVICE_FILTER: {{ $distributor.serviceFilter | quote }}
{{- /* By it Keptn's Bridge keeps the subscriptions. */}}
K8S_DEPLOYMENT_NAME: {{ include "job-executor-service.fullname" . }}
VERSION: {{ .Chart.AppVersion | quote }}
DISTRIBUTOR_VERSION: {{ $distributor.image.tag | quote }}
{{- if $distributor.config.queueGroup.enabled }}
PUBSUB_GROUP: {{ include "job-executor-service.fullname" . }}
{{- end }}
{{- if include "job-executor-service.remote" . }}
{{ include "job-executor-service.gateway" . }}
{{- else }}
PUBSUB_URL: {{ include "job-executor-service.natsUrl" . | quote }}
{{- end }}
{{- end }}

{{/* Environment variables of the settings `chart`, over which those of `user` win. */}}
{{- define "job-executor-service.env" -}}
{{- range $name, $value := mergeOverwrite (fromYaml .chart) .user }}
{{- if has $name (list "ADMIN_PORT" "OTEL_EXPORTER_OTLP_HEADERS" "KEPTN_API_TOKEN" "OAUTH_CLIENT_SECRET" "POD_NAME" "JOB_NAMESPACE" "K8S_NAMESPACE" "K8S_POD_NAME" "K8S_NODE_NAME") }}
{{- fail (printf "settings: %s is set by the chart" $name) }}
{{- end }}
{{- if ne (toString $value) "" }}
- {name: {{ $name }}, value: {{ kindIs "float64" $value | ternary (toJson $value) (toString $value) | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* A security context as JSON. 0.2.5 spelt fields of it as RunAsUser, and these win over the defaults. */}}
{{- define "job-executor-service.securityContext" -}}
{{- $names := dict }}
{{- range .fields }}
{{- $_ := set $names (lower .) . }}
{{- end }}
{{- $context := dict }}
{{- range $key, $value := .given }}
{{- $name := get $names (lower $key) }}
{{- if not $name }}
{{- fail (printf "%s: unknown field %s, expected one of %s" $.path $key (join ", " $.fields)) }}
{{- end }}
{{- if or (ne $key $name) (not (hasKey $context $name)) }}
{{- $_ := set $context $name $value }}
{{- end }}
{{- end }}
{{- toJson $context }}
{{- end }}

{{- define "job-executor-service.jobFiles" -}}
{{- $jobs := .Values.jobConfig }}
{{- $pod := list "appArmorProfile" "fsGroup" "fsGroupChangePolicy" "runAsGroup" "runAsNonRoot" "runAsUser" "seLinuxOptions" "seccompProfile" "supplementalGroups" "supplementalGroupsPolicy" "sysctls" }}
{{- $container := list "allowPrivilegeEscalation" "appArmorProfile" "capabilities" "privileged" "procMount" "readOnlyRootFilesystem" "runAsGroup" "runAsNonRoot" "runAsUser" "seLinuxOptions" "seccompProfile" }}
{{- with $jobs.podSecurityContext }}
job-podSecurityContext.json: {{ include "job-executor-service.securityContext" (dict "path" "jobConfig.podSecurityContext" "given" . "fields" $pod) | quote }}
{{- end }}
{{- with $jobs.jobSecurityContext }}
{{- $context := include "job-executor-service.securityContext" (dict "path" "jobConfig.jobSecurityContext" "given" . "fields" $container) }}
{{- if and (get (fromJson $context) "privileged") (not $jobs.allowPrivilegedJobs) }}
{{- fail "jobConfig.jobSecurityContext: privileged needs jobConfig.allowPrivilegedJobs" }}
{{- end }}
job-defaultSecurityContext.json: {{ $context | quote }}
{{- end }}
{{- with $jobs.labels }}
job-labels.yaml: {{ toYaml . | quote }}
{{- end }}
{{- with .Values.logMasks }}
log-masks.txt: {{ join "\n" . | quote }}
{{- end }}
{{- end }}
