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
{{- with .Values.state.postgres }}
{{- if .enabled }}
{{- $state := dict "url" .url }}
{{- with .schema }}
{{- $state = set $state "schema" . }}
{{- end }}
{{- with .lease }}
{{- $state = set $state "lease" . }}
{{- end }}
{{- if .existingSecret }}
{{- $state = set $state "password_file" "/run/secrets/agentos-exporter/state-password" }}
{{- end }}
{{- $config = set $config "state" $state }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "agentos-exporter.replicas" -}}
{{- default (ternary 2 1 .Values.state.postgres.enabled) .Values.replicas }}
{{- end }}

{{- /* What is mounted from Secrets, as a list in JSON: `secrets`, and the password of the state. */}}
{{- define "agentos-exporter.secrets" -}}
{{- $secrets := .Values.secrets }}
{{- with .Values.state.postgres }}
{{- if and .enabled .existingSecret }}
{{- $secrets = append $secrets (dict "name" "state-password" "secret" .existingSecret "key" .passwordKey) }}
{{- end }}
{{- end }}
{{- toJson $secrets }}
{{- end }}

{{- /* Refuses values that contradict each other. */}}
{{- define "agentos-exporter.check" -}}
{{- $postgres := .Values.state.postgres }}
{{- if $postgres.enabled }}
{{- if .Values.config.state }}
{{- fail "config.state and state.postgres.enabled: the state is in one place; leave out config.state" }}
{{- end }}
{{- if or .Values.persistence.existingClaim .Values.persistence.storageClass }}
{{- fail "persistence and state.postgres.enabled: with the state in PostgreSQL there is no volume; leave out persistence" }}
{{- end }}
{{- if regexMatch "--shard[.]" (join " " .Values.extraArgs) }}
{{- fail "extraArgs: --shard.* and state.postgres.enabled: replicas divide the AgentOS instances by themselves" }}
{{- end }}
{{- range .Values.secrets }}
{{- if eq .name "state-password" }}
{{- fail "secrets: state-password is the name of the file with the password of state.postgres; choose another" }}
{{- end }}
{{- end }}
{{- if and .Values.existingConfigMap (or $postgres.url $postgres.schema $postgres.lease) }}
{{- fail "existingConfigMap and state.postgres.url, schema or lease: the ConfigMap itself names the state" }}
{{- end }}
{{- /* The schema would repeat the URL in its message. */}}
{{- $url := regexMatch "^postgres(ql)?([+][a-z0-9]+)?://([^:@/?]+@)?[^@/?]*([/?].*)?$" $postgres.url }}
{{- if and (not .Values.existingConfigMap) (or (not $url) (regexMatch "[?&]password=" $postgres.url)) }}
{{- fail "state.postgres.url: must be postgresql://ROLE@HOST:5432/DATABASE?sslmode=verify-full, without a password" }}
{{- end }}
{{- else if gt (int (include "agentos-exporter.replicas" .)) 1 }}
{{- fail "replicas: more than one needs state.postgres.enabled: each would count every span, and a volume has one state file" }}
{{- else if or $postgres.url $postgres.schema $postgres.lease $postgres.existingSecret }}
{{- fail "state.postgres: is not in force; set state.postgres.enabled" }}
{{- end }}
{{- end }}

{{- /* TCP ports of the hosts in the URL of the state, as a list in JSON. */}}
{{- define "agentos-exporter.statePorts" -}}
{{- $ports := list }}
{{- $hosts := regexReplaceAll "^[a-z+]+://([^@/]*@)?([^/?]*).*$" .Values.state.postgres.url "${2}" }}
{{- range splitList "," $hosts }}
{{- $ports = append $ports (default "5432" (regexFind "[0-9]+$" (regexFind ":[0-9]+$" .)) | int) }}
{{- end }}
{{- uniq $ports | toJson }}
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
