{{- define "agentos-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 52 characters: the StatefulSet adds a hash of 10 to the label of its pods. */}}
{{- define "agentos-exporter.fullname" -}}
{{- $name := include "agentos-exporter.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "agentos-exporter.selector" -}}
app.kubernetes.io/name: {{ include "agentos-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agentos-exporter.labels" -}}
{{ include "agentos-exporter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "agentos-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "agentos-exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "agentos-exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* The configuration as the exporter reads it: with `prices`, it names their file. */}}
{{- define "agentos-exporter.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if and .Values.prices (not (hasKey $config "prices")) }}
{{- $config = set $config "prices" "prices.yml" }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* The TCP ports that the URLs of the configuration lead to, as a list in JSON. */}}
{{- define "agentos-exporter.egressPorts" -}}
{{- $ports := .Values.networkPolicy.egressPorts }}
{{- if and (not $ports) (not .Values.existingConfigMap) }}
{{- $known := dict "http" 80 "https" 443 "postgresql" 5432 "mysql" 3306 }}
{{- range concat .Values.config.agentos (.Values.config.push | default list) }}
{{- $urls := list .url .otlp_url .remote_write_url }}
{{- range $database := kindIs "slice" .database | ternary .database (list .database) }}
{{- $urls = append $urls (kindIs "map" $database | ternary (get (kindIs "map" $database | ternary $database dict) "url") $database) }}
{{- end }}
{{- range $url := compact $urls }}
{{- $parts := urlParse $url }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $parts.host) }}
{{- if $port }}
{{- $ports = append $ports (int $port) }}
{{- else }}
{{- with get $known (first (splitList "+" $parts.scheme)) }}
{{- $ports = append $ports . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- uniq $ports | toJson }}
{{- end }}

{{- /* A probe; behind TLS or a password it asks whether the port listens, since kubelet has neither. */}}
{{- define "agentos-exporter.probe" -}}
{{- $probe := deepCopy .probe }}
{{- if and .guarded $probe.httpGet }}
{{- $probe = set (omit $probe "httpGet") "tcpSocket" (dict "port" $probe.httpGet.port) }}
{{- end }}
{{- toYaml $probe }}
{{- end }}
