#!/usr/bin/env bash
# What only a GPU can show, in the order in which it is wanted; README.md beside this file says more.
#
#     bash results/gpu/measure.sh speed OUT               # Steps of stated sizes: lines in OUT.
#     bash results/gpu/measure.sh smollm2 OUT WEIGHTS     # SmolLM2 on E2E: a record a run in OUT.
#
# TINY=1 takes tiny sizes and no limits of time, to see on a CPU that everything goes through.
set -uo pipefail
what=${1:?speed or smollm2} out=${2:?a folder to write to} weights=${3:-}
tiny=${TINY:-}
failed=0
mkdir -p "$out"

# Runs a command for so many seconds at most; what fails is told, and the next one begins.
limited() {
  local seconds=$1 status=0
  shift
  [ -z "$tiny" ] || seconds=1000
  echo "== $*"
  timeout -k 10 "$seconds" "$@" || status=$?
  [ "$status" -eq 0 ] || { failed=1 && echo "== status $status of: $*"; }
}

# Times private and plain steps: seconds, name of the lines, config, and more flags.
bench() {
  local seconds=$1 lines=$out/$2.jsonl config=$3
  shift 3
  local sizes=()
  [ -z "$tiny" ] || sizes=(--batch_size=2 --microbatch_size=2 --seq_len=8 --steps=1
    --config.backbone.{layers=1,width=64,heads=8,feed_forward=64,vocab_size=50})
  limited "$seconds" python -m experiments.bench --config="configs/memory/$config.py" \
    --peak_flops="${PEAK_FLOPS:-989e12}" --steps=10 "$@" "${sizes[@]}" --output="$lines"
  [ ! -s "$lines.partial" ] || mv "$lines.partial" "$lines"
}

# Nine minutes at most.
speed() {
  local encoder=(--batch_size=32 --microbatch_size=32 --seq_len=128)
  local decoder=(--batch_size=8 --microbatch_size=8 --seq_len=512)
  local int4=(--config.storage_dtype=int4 --config.storage_block=64)
  local seven="('query','key','value','attention_output','intermediate','output','gated')"
  [ -z "$tiny" ] || int4=(--config.storage_dtype=int4)
  local qwen=(--config.options.lora.rank=16 "--config.options.lora.targets=$seven")
  bench 80 full roberta_large "${encoder[@]}" --methods=full --engines=book_keeping,ghost
  bench 50 per_layer roberta_large "${encoder[@]}" --methods=full --engines=book_keeping \
    --config.privacy.clipping_scope=per_layer
  bench 90 llama_7b llama_7b "${decoder[@]}" --methods=lora+remat,reversible --engines=vmap
  bench 70 qwen qwen2_7b "${decoder[@]}" "${qwen[@]}" --methods=lora+remat --engines=vmap
  bench 70 qwen_int4 qwen2_7b "${decoder[@]}" "${qwen[@]}" "${int4[@]}" --methods=lora+remat \
    --engines=vmap
  bench 50 others roberta_large "${encoder[@]}" --methods=lora,side,reversible --engines=vmap
  bench 130 llama_70b llama_70b "${decoder[@]}" "${int4[@]}" --methods=reversible --engines=ghost
}

# As many of the runs as nine minutes allow; what was stopped goes on where OUT is kept.
smollm2() {
  local run=(python -m experiments.run --workdir="$out/runs") name
  if [ -n "$tiny" ]; then
    run+=(--config=configs/smollm2_e2e.py:smoke)
  else
    run+=(--config=configs/smollm2_e2e.py --config.model.weights="${weights:?the weights of SmolLM2}")
  fi
  mkdir -p "$out/records"
  for name in ${ONLY:-lora-eps8 reversible-eps8 side-eps8 lora-eps3 lora-inf}; do
    [ "$SECONDS" -lt 530 ] || { echo "== no time for $name" && failed=1 && continue; }
    limited "$((540 - SECONDS))" "${run[@]}" --only="$name"
    [ ! -f "$out/runs/$name/record.json" ] ||
      cp "$out/runs/$name/record.json" "$out/records/$name.json"
  done
}

case $what in
  speed) speed ;;
  smollm2) smollm2 ;;
  *) echo "Unknown part '$what'; give speed or smollm2." >&2 && exit 2 ;;
esac
exit "$failed"
