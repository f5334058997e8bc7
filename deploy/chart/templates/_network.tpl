{{/* Any Pod, as CoreDNS has other labels on other clusters, and the address of NodeLocal DNSCache. */}}
{{- define "job-executor-service.egressToDns" -}}
- to:
    - namespaceSelector: {}
    - ipBlock: {cidr: 169.254.20.10/32}
  ports:
    - {protocol: UDP, port: 53}
    # Long answers come over TCP.
    - {protocol: TCP, port: 53}
{{- end }}

{{/* Networks that `blocked` has as a list, for IPv4 and IPv6; `metadata` adds those of cloud metadata. */}}
{{- define "job-executor-service.world" -}}
{{- $four := list }}
{{- $six := list }}
{{- range .blocked }}
{{- if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end }}
{{- end }}
{{- if .metadata }}
{{- /* Link-local ones are of most clouds, the others of AWS over IPv6, Alibaba, Azure and Oracle. */}}
{{- $four = concat $four (list "169.254.0.0/16" "100.100.100.200/32" "168.63.129.16/32" "192.0.0.192/32") }}
{{- $six = concat $six (list "fe80::/10" "fd00:ec2::254/128") }}
{{- end }}
{{- range list (list "0.0.0.0/0" $four) (list "::/0" $six) }}
- ipBlock:
    cidr: {{ index . 0 | quote }}
    {{- with index . 1 | uniq }}
    except: {{ toJson . }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "job-executor-service.jobPolicySpec" -}}
podSelector:
  matchLabels: {app.kubernetes.io/managed-by: {{ include "job-executor-service.fullname" . }}}
# Nobody reaches a Job.
policyTypes: [Ingress, Egress]
egress:
  {{- include "job-executor-service.egressToDns" . | nindent 2 }}
  # Init containers get files of Keptn, also where its network is blocked below.
  - to:
      - namespaceSelector: {}
        podSelector:
          matchExpressions:
            - key: app.kubernetes.io/name
              operator: In
              values: [configuration-service, resource-service, api-gateway-nginx]
  {{- $policy := .Values.jobConfig.networkPolicy }}
  {{- $blocked := splitList "," (join "," $policy.blockCIDRs | nospace) | compact }}
  - to:
      {{- include "job-executor-service.world" (dict "blocked" $blocked "metadata" $policy.blockCloudMetadata) | trim | nindent 6 }}
  {{- with $policy.additionalEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
