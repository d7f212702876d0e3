#!/bin/bash
# Several nodes with GPUs under SLURM. Submit from the checkout, on a file system all nodes share:
#
#     WORKDIR=/shared/runs/one sbatch --nodes=4 experiments/cluster/slurm.sh --only=lora-eps8
#
# Options of sbatch go before the script and override the lines below; all that follows the script
# goes to experiments.run. Choices, with defaults:
#
#   WORKDIR   folder to write to, seen by all nodes; required
#   CONFIG    file of the experiment (configs/sst2.py)
#   PYTHON    interpreter that has memarc and JAX for CUDA (python)
#   DRY_RUN   1 prints commands instead of running them
#
# One process per GPU, and each sees all GPUs of its node: JAX takes the one of its local rank. So
# ask for whole nodes, and never for --gpus-per-task, which hides the others.
#SBATCH --job-name=memarc
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --open-mode=append
# After the death of a node SLURM itself runs the job again.
#SBATCH --requeue
# Five minutes before its time is up every process is told to save. Not "B:TERM": the shell could
# only hand that signal to srun, which answers it by killing its tasks.
#SBATCH --signal=TERM@300
set -euo pipefail
: "${WORKDIR:?set it to a folder that all nodes share}"

run() { if [[ ${DRY_RUN:-0} == 1 ]]; then printf '%q ' "$@" && echo; else "$@"; fi; }

# A process that is done must not end one that still saves; if one died, the others notice.
step=(srun --kill-on-bad-exit=0 --wait=0 --gpu-bind=none
  --cpus-per-task="${SLURM_CPUS_PER_TASK:-4}")
command=("${PYTHON:-python}" -m experiments.run --config="${CONFIG:-configs/sst2.py}"
  --workdir="$WORKDIR" --distributed "$@")

status=0
run "${step[@]}" "${command[@]}" || status=$?
if [[ $status == 143 ]]; then # Stopped and saved: the same command goes on.
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
