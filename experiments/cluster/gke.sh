#!/bin/bash
# A TPU slice of several hosts in GKE, as a JobSet (whose controller the cluster must have):
#
#     IMAGE=REGISTRY/memarc CLAIM=shared WORKDIR=/shared/runs/one \
#         experiments/cluster/gke.sh --only=lora-eps8
#
# Arguments go to experiments.run. To stop, or after a failure: kubectl delete jobset NAME; then
# the same command goes on. Choices, with defaults:
#
#   IMAGE     holds memarc, JAX for TPUs, data and weights; starts in the checkout; required
#   CLAIM     persistent volume claim, ReadWriteMany, of a file system with locks; required
#   MOUNT     where the claim is mounted (/shared)
#   WORKDIR   folder to write to, below MOUNT; required
#   CONFIG    file of the experiment (configs/sst2.py)
#   PYTHON    interpreter in the image (python)
#   NAME      of the JobSet (memarc)
#   ACCELERATOR, TOPOLOGY, HOSTS, CHIPS   the slice: kind, shape, hosts, chips of a host
#             (tpu-v5-lite-podslice, 4x4, 4, 4)
#   DRY_RUN   1 prints the JobSet instead of creating it
set -euo pipefail
: "${IMAGE:?set it to the container image}" "${CLAIM:?set it to the claim of a shared volume}"
: "${WORKDIR:?set it to a folder below MOUNT, which all hosts share}"

quoted() { # As strings of JSON, which YAML reads too.
  local text
  for text in "$@"; do
    text=${text//\\/\\\\}
    printf '"%s", ' "${text//\"/\\\"}"
  done
}
command=$(quoted "${PYTHON:-python}" -m experiments.run --config="${CONFIG:-configs/sst2.py}" \
  --workdir="$WORKDIR" --distributed "$@")

jobset() { # Status 143 is "stopped and saved": it, and a lost host, start all hosts anew.
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: ${NAME:-memarc}
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: 3
    rules:
    - action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons: ["PodFailurePolicy"]
  replicatedJobs:
  - name: slice
    replicas: 1
    template:
      spec:
        completionMode: Indexed
        parallelism: ${HOSTS:-4}
        completions: ${HOSTS:-4}
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: memarc, operator: In, values: [143]}
          - action: FailJob
            onPodConditions: [{type: DisruptionTarget}]
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: ${ACCELERATOR:-tpu-v5-lite-podslice}
              cloud.google.com/gke-tpu-topology: ${TOPOLOGY:-4x4}
            containers:
            - name: memarc
              image: ${IMAGE}
              command: [${command%, }]
              resources: {limits: {google.com/tpu: ${CHIPS:-4}}}
              volumeMounts: [{name: shared, mountPath: "${MOUNT:-/shared}"}]
            volumes: [{name: shared, persistentVolumeClaim: {claimName: "${CLAIM}"}}]
YAML
}

if [[ ${DRY_RUN:-0} == 1 ]]; then jobset; else jobset | kubectl create -f -; fi
