#!/usr/bin/env bash
# usage: scripts/demo.sh [OUT]
#
# The whole path on the embedded demo corpus: text, data-bin, training, decoding, scores, samples, report.
# OUT (out/demo) is emptied first.
#
# Settings, from the environment: PAIRS (20000 for training), and those of scripts/translation.sh.

. "$(dirname "$0")/lib.sh"
OUT=${1:-$ROOT/out/demo}
rm -rf "$OUT"
mkdir -p "$OUT"
export EPOCHS=${EPOCHS:-5} VOCAB=${VOCAB:-3000} WARMUP=${WARMUP:-400} DROPOUT=${DROPOUT:-0.1} LR=${LR:-1e-3}
export MAX_TOKENS=${MAX_TOKENS:-1024} AVERAGE=${AVERAGE:-2}
printf '\nDemo: a small English-German model, from text to scores in about 3 minutes on 2 cores\n'
fairbeam demo-corpus "$OUT/text" --train "${PAIRS:-20000}" --valid 500 --test 500 --seed 1
exec "$ROOT/scripts/translation.sh" "$OUT/text" en de "$OUT"
