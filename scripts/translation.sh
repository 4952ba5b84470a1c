#!/usr/bin/env bash
# usage: scripts/translation.sh DATA SRC TGT OUT
#
# From plain text to a trained, scored and packaged translation model. DATA holds train.SRC and train.TGT,
# valid.* and test.*, one sentence a line. OUT gets the data-bin, checkpoints, the test set's translations, a
# bundle and report.html. Run it again after a kill: it goes on where it stopped.
#
# Settings, from the environment: EPOCHS (18), ARCH (fairbeam_transformer_tiny), VOCAB (8000), MAX_TOKENS (4096),
# DROPOUT (0.2), LR (1e-3), WARMUP (600), BEAM (5), AVERAGE (5 checkpoints).

. "$(dirname "$0")/lib.sh"
[ $# -eq 4 ] || usage
DATA=$1 SRC=$2 TGT=$3 OUT=$4
mkdir -p "$OUT"

prepare_data "$DATA" "$SRC" "$TGT" "$OUT" --vocab-size "${VOCAB:-8000}"
train_model "$OUT" --arch "${ARCH:-fairbeam_transformer_tiny}" --dropout "${DROPOUT:-0.2}" \
  --lr "${LR:-1e-3}" --warmup-updates "${WARMUP:-600}" --max-tokens "${MAX_TOKENS:-4096}" \
  --max-epoch "${EPOCHS:-18}" --eval-bleu --eval-bleu-args '{"beam": 1}'
decode_test "$OUT" "$SRC" "$TGT" test --beam "${BEAM:-5}"

stage score "the translations against their references"
fairbeam score "$DATA/test.$TGT" -i "$OUT/test.$TGT.hyp" -m bleu chrf -f text -w 2
show_samples "$DATA/test.$SRC" "$DATA/test.$TGT" "$OUT/test.$TGT.hyp"

stage package "model and report"
fairbeam export "$OUT/checkpoints/averaged.pt" "$OUT/model" --data "$OUT/data-bin" -s "$SRC" -t "$TGT" --overwrite >/dev/null
fairbeam report "$OUT/report.html" --title "$SRC to $TGT, $(basename "$DATA")" --log "$OUT/train.log" \
  --source "$DATA/test.$SRC" --reference "$DATA/test.$TGT" --hypotheses "$OUT/test.$TGT.hyp" --model "$OUT/model" >/dev/null
show_results "$OUT" "$SRC" "$TGT"
show_times
