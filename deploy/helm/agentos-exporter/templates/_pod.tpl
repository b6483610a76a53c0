{{- /* The template of the pods, as a StatefulSet and a Deployment have it below `spec`. */}}
{{- define "agentos-exporter.pod" -}}
{{- $secrets := include "agentos-exporter.secrets" . | fromJsonArray -}}
template:
    metadata:
      labels:
        {{- include "agentos-exporter.selector" . | nindent 8 }}
        app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: agentos-exporter
        {{- if not .Values.existingConfigMap }}
        # A changed configuration is a new pod, which goes on counting where this one stopped.
        checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
        {{- end }}
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "agentos-exporter.serviceAccountName" . }}
      automountServiceAccountToken: false
      # No variables for each Service of the namespace.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
      {{- with .Values.podSecurityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with .Values.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      containers:
        - name: agentos-exporter
          image: {{ include "agentos-exporter.image" . | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args:
            - run
            - --config.file=/etc/agentos-exporter/agentos-exporter.yml
            - --web.listen-address=:{{ .Values.service.port }}
            {{- with .Values.web.configFile }}
            - --web.config.file=/run/secrets/agentos-exporter/{{ . }}
            {{- end }}
            - --log.level={{ .Values.log.level }}
            - --log.format={{ .Values.log.format }}
            {{- with .Values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with .Values.extraEnv }}
          env:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .Values.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - name: metrics
              containerPort: {{ .Values.service.port }}
              protocol: TCP
          {{- with .Values.startupProbe }}
          startupProbe:
            {{- include "agentos-exporter.probe" (dict "probe" . "guarded" $.Values.web.configFile) | nindent 12 }}
          {{- end }}
          {{- with .Values.livenessProbe }}
          livenessProbe:
            {{- include "agentos-exporter.probe" (dict "probe" . "guarded" $.Values.web.configFile) | nindent 12 }}
          {{- end }}
          {{- with .Values.readinessProbe }}
          readinessProbe:
            {{- include "agentos-exporter.probe" (dict "probe" . "guarded" $.Values.web.configFile) | nindent 12 }}
          {{- end }}
          {{- with .Values.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .Values.containerSecurityContext }}
          securityContext:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            - name: config
              mountPath: /etc/agentos-exporter
              readOnly: true
            {{- if not .Values.state.postgres.enabled }}
            - name: state
              mountPath: /var/lib/agentos-exporter
            {{- end }}
            - name: tmp
              mountPath: /tmp
            {{- if $secrets }}
            - name: secrets
              mountPath: /run/secrets/agentos-exporter
              readOnly: true
            {{- end }}
            {{- with .Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      {{- with .Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- toYaml . | nindent 8 }}
      {{- else }}
      {{- if .Values.state.postgres.enabled }}
      topologySpreadConstraints:
        # A node that dies takes one replica along, where there are nodes enough.
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "agentos-exporter.selector" . | nindent 14 }}
      {{- end }}
      {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ default (include "agentos-exporter.fullname" .) .Values.existingConfigMap }}
        - name: tmp
          emptyDir:
            sizeLimit: 64Mi
        {{- if $secrets }}
        # One volume, no subPath: a changed Secret shows in the running pod.
        - name: secrets
          projected:
            defaultMode: 0440
            sources:
              {{- range $secrets }}
              - secret:
                  name: {{ .secret }}
                  items:
                    - key: {{ .key }}
                      path: {{ .name }}
              {{- end }}
        {{- end }}
        {{- if .Values.state.postgres.enabled }}
        {{- else if not .Values.persistence.enabled }}
        - name: state
          emptyDir: {}
        {{- else if .Values.persistence.existingClaim }}
        - name: state
          persistentVolumeClaim:
            claimName: {{ .Values.persistence.existingClaim }}
        {{- end }}
        {{- with .Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
