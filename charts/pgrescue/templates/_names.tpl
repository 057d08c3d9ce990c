{{- define "pgrescue.labels" -}}
app.kubernetes.io/name: pgrescue
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pgrescue.selector" -}}
app.kubernetes.io/name: pgrescue
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "pgrescue.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{- define "pgrescue.may-get" -}}
authorizer.group('').resource('{{ .resource }}').namespace(request.namespace).name({{ .name }}).check('get').allowed()
{{- end }}
