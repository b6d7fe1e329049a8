{{- define "tidepool.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- define "tidepool.selector" -}}
app.kubernetes.io/name: tidepool
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "tidepool.labels" -}}
{{ include "tidepool.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "tidepool.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "tidepool.secret" -}}
{{ .Values.secret.existing | default (include "tidepool.name" .) }}
{{- end }}
{{- define "tidepool.maxGroups" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxGroups }}
{{- else if .Values.keda.enabled }}{{ .Values.keda.maxGroups }}
{{- else }}{{ .Values.groups }}{{ end }}
{{- end }}
{{- define "tidepool.modelPath" -}}
{{- if eq .Values.model.source "embedded" }}/tidepool/deploy/models/{{ .Values.model.directory }}
{{- else }}/models/{{ .Values.model.directory }}{{ end }}
{{- end }}
{{- define "tidepool.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}
{{- define "tidepool.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
{{- define "tidepool.volumes" -}}
- name: tmp
  emptyDir: {}
- name: secret
  secret:
    secretName: {{ include "tidepool.secret" . }}
{{- if eq .Values.model.source "claim" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ required "model.claim is needed with model.source claim" .Values.model.claim }}
    readOnly: true
{{- else if eq .Values.model.source "pull" }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.model.pull.sizeLimit }}
{{- end }}
{{- end }}
{{- define "tidepool.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: secret
  mountPath: /run/tidepool
  readOnly: true
{{- if ne .Values.model.source "embedded" }}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}
{{- end }}
{{- define "tidepool.pull" -}}
{{- if eq .Values.model.source "pull" }}
initContainers:
  - name: pull
    image: {{ required "model.pull.image is needed with model.source pull" .Values.model.pull.image }}
    command: {{ toYaml .Values.model.pull.command | nindent 6 }}
    {{- with .Values.model.pull.env }}
    env: {{ toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{ include "tidepool.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: models
        mountPath: /models
      - name: tmp
        mountPath: /tmp
{{- end }}
{{- end }}
{{- define "tidepool.telemetry" -}}
{{- with .Values.otlpEndpoint }}
- name: OTEL_DENO
  value: "true"
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
