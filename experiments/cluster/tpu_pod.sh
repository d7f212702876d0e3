#!/bin/bash
# A Cloud TPU slice of several hosts, driven from a machine that has gcloud:
#
#     TPU_NAME=pod ZONE=us-west4-a REPO=/shared/memarc WORKDIR=/shared/runs/one \
#         experiments/cluster/tpu_pod.sh --only=lora-eps8
#
# Arguments go to experiments.run. TERM or Ctrl-C tells all hosts to save, and waits. If connections
# break, the run goes on by itself. Choices, with defaults:
#
#   TPU_NAME     the slice; required
#   ZONE         where it is; required
#   REPO         absolute path of the checkout on every host; required
#   WORKDIR      folder to write to, on a file system with locks that all hosts share; required
#   CONFIG       file of the experiment (configs/sst2.py)
#   PYTHON       interpreter on the hosts that has memarc and JAX for TPUs (python3)
#   TPU_TYPE     such as v5litepod-16: makes the slice first (none: it is there)
#   TPU_VERSION  image of a new slice (v2-alpha-tpuv5-lite)
#   SETUP        shell command for every host before the run: mount, install (none)
#   PAUSE        seconds before a run that was stopped by others goes on (30)
#   DRY_RUN      1 prints commands instead of running them
set -euo pipefail
: "${TPU_NAME:?set it to the name of the slice}" "${ZONE:?set it to the zone of the slice}"
: "${REPO:?set it to the path of the checkout on the hosts}"
: "${WORKDIR:?set it to a folder that all hosts share}"

run() { if [[ ${DRY_RUN:-0} == 1 ]]; then printf '%q ' "$@" && echo; else "$@"; fi; }
on_all_hosts() {
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all --command="$1" \
    </dev/null
}

if [[ -n ${TPU_TYPE:-} ]]; then
  run gcloud compute tpus tpu-vm create "$TPU_NAME" --zone="$ZONE" \
    --accelerator-type="$TPU_TYPE" --version="${TPU_VERSION:-v2-alpha-tpuv5-lite}"
fi
if [[ -n ${SETUP:-} ]]; then on_all_hosts "$SETUP"; fi

printf -v command '%q ' "${PYTHON:-python3}" -m experiments.run \
  --config="${CONFIG:-configs/sst2.py}" --workdir="$WORKDIR" --distributed "$@"
# Python takes the shell's place, so that the number written is Python's.
printf -v remote 'cd %q && echo $$ > /tmp/memarc.pid && exec %s' "$REPO" "$command"

stopped=0 status=143
trap 'stopped=1 signalled=1; on_all_hosts "kill -TERM \$(cat /tmp/memarc.pid)" || true' TERM INT
set -m # Ctrl-C reaches this script alone, not the connections.
while [[ $status == 143 && $stopped == 0 ]]; do
  on_all_hosts "$remote" &
  signalled=1
  while [[ $signalled == 1 ]]; do # A signal ends the wait, not the run.
    signalled=0 status=0
    wait $! || status=$?
  done
  # 143: stopped and saved. If not by this script, the same command goes on.
  if [[ $status == 143 && $stopped == 0 ]]; then sleep "${PAUSE:-30}"; fi
done
exit "$status"
