#!/usr/bin/env bash
# usage: scripts/summarization.sh DATA SRC TGT OUT
#
# From documents and summaries to a trained, scored and packaged summarization model. DATA holds train.SRC and
# train.TGT, valid.* and test.*, one document a line; a summary line may hold several references separated by tabs.
# ROUGE is computed by the rouge-score library, beside BLEU. Run it again after a kill: it goes on where it stopped.
#
# Settings, from the environment: EPOCHS (20), ARCH (fairbeam_transformer_tiny), VOCAB (8000), MAX_TOKENS (4096),
# DROPOUT (0.3), LR (1e-3), WARMUP (300), BEAM (4), AVERAGE (5 checkpoints).

. "$(dirname "$0")/lib.sh"
[ $# -eq 4 ] || usage
DATA=$1 SRC=$2 TGT=$3 OUT=$4
mkdir -p "$OUT"

prepare_data "$DATA" "$SRC" "$TGT" "$OUT" --vocab-size "${VOCAB:-8000}" --references tab
train_model "$OUT" --arch "${ARCH:-fairbeam_transformer_tiny}" --dropout "${DROPOUT:-0.3}" \
  --lr "${LR:-1e-3}" --warmup-updates "${WARMUP:-300}" --max-tokens "${MAX_TOKENS:-4096}" \
  --max-epoch "${EPOCHS:-20}"
decode_test "$OUT" "$SRC" "$TGT" test --beam "${BEAM:-4}" --no-repeat-ngram-size 3 --max-len-b 80

stage score "the summaries against their references"
fairbeam score "$DATA/test.$TGT" --references-tab -i "$OUT/test.$TGT.hyp" -m rouge bleu -f text -w 2
cut -f1 "$DATA/test.$TGT" > "$OUT/test.$TGT.first"
show_samples "$DATA/test.$SRC" "$OUT/test.$TGT.first" "$OUT/test.$TGT.hyp" | cut -c 1-300

stage package "model and report"
fairbeam export "$OUT/checkpoints/averaged.pt" "$OUT/model" --data "$OUT/data-bin" -s "$SRC" -t "$TGT" --overwrite >/dev/null
fairbeam report "$OUT/report.html" --title "$SRC to $TGT, $(basename "$DATA")" --log "$OUT/train.log" \
  --source "$DATA/test.$SRC" --reference "$DATA/test.$TGT" --references-tab \
  --hypotheses "$OUT/test.$TGT.hyp" -m rouge bleu --samples 5 >/dev/null
show_results "$OUT" "$SRC" "$TGT"
show_times
