{{/* "true" if Keptn is reached through the gateway of its API. */}}
{{- define "job-executor-service.remote" -}}
{{- $remote := .Values.remoteControlPlane }}
{{- $api := $remote.api }}
{{- if or $remote.autoDetect.enabled $api.hostname $api.token $api.existingSecret (eq $api.authMode "oauth") }}true{{ end }}
{{- end }}

{{/* "true" if the Keptn of the distributor's version is this one or later; a tag that is no version is late. */}}
{{- define "job-executor-service.keptnFrom" -}}
{{- $tag := (index . 0).Values.distributor.image.tag | toString }}
{{- if not (regexMatch `^v?[0-9]+\.[0-9]+\.[0-9]+` $tag) }}true
{{- else if semverCompare (printf ">=%s-0" (index . 1)) $tag }}true
{{- end }}
{{- end }}

{{- define "job-executor-service.detectedNamespace" -}}
{{- $api := .Values.remoteControlPlane.api }}
{{- if or $api.hostname $api.token $api.existingSecret }}
{{- fail "remoteControlPlane.autoDetect finds gateway and token itself: remove api.hostname, api.token and api.existingSecret" }}
{{- end }}
{{- $found := list }}
{{- range (lookup "v1" "Service" .Values.remoteControlPlane.autoDetect.namespace "").items }}
{{- $part := get (.metadata.labels | default dict) "app.kubernetes.io/part-of" }}
{{- if and (eq .metadata.name "api-gateway-nginx") (hasPrefix "keptn" $part) }}
{{- $found = append $found .metadata.namespace }}
{{- end }}
{{- end }}
{{- if not $found }}
{{- fail "remoteControlPlane.autoDetect found no Keptn: no Service api-gateway-nginx that is part of keptn" }}
{{- else if gt (len $found) 1 }}
{{- fail (printf "remoteControlPlane.autoDetect found several Keptns, in %s: name one as remoteControlPlane.autoDetect.namespace" (join ", " $found)) }}
{{- end }}
{{- first $found }}
{{- end }}

{{/* The address of Keptn's API. */}}
{{- define "job-executor-service.endpoint" -}}
{{- $api := .Values.remoteControlPlane.api }}
{{- if not .Values.remoteControlPlane.autoDetect.enabled }}
{{- printf "%s://%s/api" ($api.protocol | default "http") ($api.hostname | default "api-gateway-nginx.keptn") }}
{{- else }}
{{- printf "http://api-gateway-nginx.%s/api" (include "job-executor-service.detectedNamespace" .) }}
{{- end }}
{{- end }}

{{- define "job-executor-service.token" -}}
{{- if .Values.remoteControlPlane.autoDetect.enabled }}
{{- $namespace := include "job-executor-service.detectedNamespace" . }}
{{- $secret := lookup "v1" "Secret" $namespace "keptn-api-token" }}
{{- if not $secret }}
{{- fail (printf "remoteControlPlane.autoDetect found no Secret keptn-api-token in namespace %s" $namespace) }}
{{- end }}
{{- get $secret.data "keptn-api-token" | b64dec }}
{{- else }}
{{- .Values.remoteControlPlane.api.token }}
{{- end }}
{{- end }}

{{- define "job-executor-service.secretName" -}}
{{- $own := printf "%s-keptn-secrets" (include "job-executor-service.fullname" .) }}
{{- .Values.remoteControlPlane.api.existingSecret | default $own }}
{{- end }}

{{/* Pods of Jobs in other namespaces use it, too, so that it names its own. */}}
{{- define "job-executor-service.configurationService" -}}
{{- $service := include "job-executor-service.keptnFrom" (list . "0.18.0") | eq "true" | ternary "resource-service" "configuration-service" }}
{{- if .Values.configurationService }}
{{- .Values.configurationService }}
{{- else if include "job-executor-service.remote" . }}
{{- printf "%s/%s" (include "job-executor-service.endpoint" .) $service }}
{{- else }}
{{- printf "http://%s.%s:8080" $service .Release.Namespace }}
{{- end }}
{{- end }}

{{- define "job-executor-service.natsUrl" -}}
{{- $name := include "job-executor-service.keptnFrom" (list . "0.14.0") | eq "true" | ternary "keptn-nats" "keptn-nats-cluster" }}
{{- .Values.distributor.natsUrl | default (printf "nats://%s" $name) }}
{{- end }}

{{- define "job-executor-service.topics" -}}
{{- $remote := include "job-executor-service.remote" . | eq "true" }}
{{- $types := list }}
{{- range list "test" "deployment" "evaluation" "release" "approval" }}
{{- $types = append $types (printf "sh.keptn.event.%s.triggered" .) }}
{{- end }}
{{- $default := $remote | ternary (join "," $types) "sh.keptn.event.*.triggered" }}
{{- $topics := .Values.remoteControlPlane.topicSubscription | default $default }}
{{- if and $remote (regexMatch `[*>]` $topics) }}
{{- fail (printf "remoteControlPlane.topicSubscription: %s: a remote control plane has no wildcards, name full event types" $topics) }}
{{- end }}
{{- $topics }}
{{- end }}
