#!/bin/bash
# One host with several GPUs. A single process sees all of them:
#
#     WORKDIR=/tmp/one experiments/cluster/multi_gpu.sh --only=lora-eps8
#
# Arguments go to experiments.run. Choices, with defaults:
#
#   WORKDIR    folder to write to; required
#   CONFIG     file of the experiment (configs/sst2.py)
#   PYTHON     interpreter that has memarc and JAX for CUDA (python)
#   PROCESSES  0: one process for all GPUs; N: one for each of the first N (0)
#   PORT       of the coordinator, where there are several processes (12355)
#   DRY_RUN    1 prints commands instead of running them
#
# Exit status 143: stopped by a signal and saved; the same command goes on.
set -euo pipefail
: "${WORKDIR:?set it to the folder to write to}"
count=${PROCESSES:-0}
command=("${PYTHON:-python}" -m experiments.run --config="${CONFIG:-configs/sst2.py}"
  --workdir="$WORKDIR" "$@")
show() { printf '%q ' "$@" && echo; }

if [[ $count == 0 ]]; then
  if [[ ${DRY_RUN:-0} == 1 ]]; then show "${command[@]}" && exit; fi
  exec "${command[@]}" # Python takes the shell's place, and its signals.
fi

processes=() signalled=0 worst=0
trap 'signalled=1; kill -TERM "${processes[@]}" 2>/dev/null || true' TERM INT HUP
set -m # Ctrl-C reaches this script alone, so that nobody is told twice.
for ((i = 0; i < count; i++)); do
  one=(env JAX_LOCAL_DEVICE_IDS="$i" "${command[@]}"
    --coordinator_address="localhost:${PORT:-12355}" --num_processes="$count" --process_id="$i")
  if [[ ${DRY_RUN:-0} == 1 ]]; then show "${one[@]}" && continue; fi
  "${one[@]}" &
  processes+=($!)
done
for process in "${processes[@]}"; do
  signalled=1
  while [[ $signalled == 1 ]]; do # A signal ends the wait, not the process.
    signalled=0 status=0
    wait "$process" || status=$?
  done
  if ((status > worst)); then worst=$status; fi
done
exit "$worst"
