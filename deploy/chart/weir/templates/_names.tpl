{{/* Labels of everything. */}}
{{- define "weir.labels" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What pods of a component are found by; takes the component. */}}
{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "weir.image" -}}
{{- $registry := .Values.image.registry | default .Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Secrets for the registry: objects with a name, as a pod has them, or names alone, as in OpenELB's chart. */}}
{{- define "weir.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "string" . }}{{ . | quote }}{{ else }}{{ .name | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The values of the agent, with those of `speaker` that mean the same here over them. Limits do not: OpenELB's chart has 500m and
500Mi for a speaker, and an agent's maps count as its memory. */}}
{{- define "weir.agent" -}}
{{- $agent := deepCopy .Values.agent -}}
{{- range $name := list "enable" "monitorEnable" "monitorPort" "priorityClass" -}}
{{- if hasKey $.Values.speaker $name -}}
{{- $_ := set $agent $name (get $.Values.speaker $name) -}}
{{- end -}}
{{- end -}}
{{- with omit (default dict .Values.speaker.resources) "limits" -}}
{{- $_ := set $agent "resources" . -}}
{{- end -}}
{{- toYaml $agent -}}
{{- end }}

{{/* Where a pod runs and how important it is; takes the values of a component. */}}
{{- define "weir.placement" -}}
{{- with .priorityClass }}
priorityClassName: {{ . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Values of OpenELB's chart that are given and mean nothing here, a line each. */}}
{{- define "weir.ignored" -}}
{{- $values := .Values -}}
{{- $reasons := dict
      "admission" "no jobs make certificates here"
      "customImage" "NodeProxy is not supported; Services that ask for it are told so by an event"
      "nameOverride" "names are fixed: a cluster has one Weir"
      "fullnameOverride" "names are fixed: a cluster has one Weir" -}}
{{- range $name, $why := $reasons }}
{{- if hasKey $values $name }}
{{ $name }}: {{ $why }}
{{- end }}
{{- end }}
{{- if .Values.global.tag }}
global.tag: it is OpenELB's version; see image.tag
{{- end }}
{{- if hasKey .Values.controller "image" }}
controller.image: the image is Weir's own; see image
{{- end }}
{{- if hasKey .Values.controller "webhookPort" }}
controller.webhookPort: the Service is on 443 whatever the pod's port is
{{- end }}
{{- if hasKey (default dict .Values.speaker.resources) "limits" }}
speaker.resources.limits: they fit a speaker; an agent's maps count as its memory, too; see agent.resources
{{- end }}
{{- $reasons := dict
      "image" "the image is Weir's own; see image"
      "layer2" "there is no switch: Eips of protocol layer2 are always served"
      "vip" "there is no switch: Eips of protocol vip are always served"
      "memberlistSecret" "nodes agree by the Kubernetes API, and do not gossip"
      "nodeSelector" "agents are needed wherever there are pods, not only where addresses are announced; see agent.nodeSelector"
      "tolerations" "agents are needed wherever there are pods, and tolerate everything; see agent.tolerations"
      "affinity" "agents are needed wherever there are pods; see agent.affinity"
      "apiHosts" "there is no GoBGP, so nothing listens for its command line" -}}
{{- range $name, $why := $reasons }}
{{- if hasKey $values.speaker $name }}
speaker.{{ $name }}: {{ $why }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values whose names the schema does not have, a line each. Takes `values`, the `schema` that they are of, all `definitions`, and
`above`, what stands before a name. */}}
{{- define "weir.unknown" -}}
{{- $properties := .schema.properties -}}
{{- range $name, $value := .values }}
{{- if not (hasKey $properties $name) }}
{{ $.above }}{{ $name }}
{{- else }}
{{- $schema := get $properties $name }}
{{- with get $schema "$ref" }}
{{- $schema = get $.definitions (trimPrefix "#/definitions/" .) }}
{{- end }}
{{- if and (hasKey $schema "properties") (kindIs "map" $value) }}
{{- include "weir.unknown" (dict "values" $value "schema" $schema "definitions" $.definitions "above" (printf "%s%s." $.above $name)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
