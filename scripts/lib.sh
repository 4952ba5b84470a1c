# What the recipes share; sourced, not run. Bash only.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -x "$ROOT/.venv/bin/fairbeam" ] && PATH="$ROOT/.venv/bin:$PATH"
USER_DIR=(--user-dir "$ROOT/user_dir" --task fairbeam_translation)

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }

# prepare_data DATA SRC TGT OUT [option ...]: binarise once
prepare_data() {
  local data=$1 source=$2 target=$3 out=$4; shift 4
  [ -d "$out/data-bin" ] || fairbeam prepare "$data" "$source" "$target" "$out/data-bin" "$@"
}

# train_model OUT [option ...]: train, or go on where a killed run stopped; then average the last checkpoints
train_model() {
  local out=$1; shift
  local started=$SECONDS
  fairseq-train "$out/data-bin" "${USER_DIR[@]}" --save-dir "$out/checkpoints" --seed 1 \
    --share-all-embeddings --criterion fairbeam_label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --clip-norm 1.0 \
    --compute-dtype bfloat16 --precision auto --keep-last-epochs "${AVERAGE:-5}" --no-progress-bar \
    --log-format json --log-interval 50 "$@" 2>&1 | tee -a "$out/train.log" | progress
  local saved=("$out"/checkpoints/checkpoint[0-9]*.pt) last=${AVERAGE:-5}
  [ "${#saved[@]}" -ge "$last" ] || last=${#saved[@]}
  fairbeam average "$out/checkpoints/averaged.pt" --dir "$out/checkpoints" --last "$last" >/dev/null
  echo "trained in $(( (SECONDS - started) / 60 )) min $(( (SECONDS - started) % 60 )) s"
}

# The lines of a training log that a person wants to see.
progress() {
  grep --line-buffered -E '\| (train_inner|train|valid) \||rror|rning' |
    grep --line-buffered -oE '(train_inner|train|valid) \| .*|.*(rror|rning).*' || true
}

# decode_test OUT SRC TGT SPLIT [option ...]: fairseq-generate, and its best outputs in source order
decode_test() {
  local out=$1 target=$3 split=$4; shift 4
  fairseq-generate "$out/data-bin" "${USER_DIR[@]}" --path "$out/checkpoints/averaged.pt" --gen-subset "$split" \
    --batch-size 64 --precision auto --no-progress-bar "$@" > "$out/generate-$split.txt"
  grep '^D-' "$out/generate-$split.txt" | cut -c3- | sort -n | cut -f3- > "$out/$split.$target.hyp"
  grep '^Generate' "$out/generate-$split.txt" || true
}

# show_samples SOURCE REFERENCE HYPOTHESES
show_samples() {
  paste -d '\n' <(head -n 10 "$1") <(head -n 10 "$2") <(head -n 10 "$3") |
    awk '{ print (NR%3==1 ? "\nsource      " : NR%3==2 ? "reference   " : "hypothesis  ") $0 }'
}
