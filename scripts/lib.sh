# Functions that the recipes share; sourced, not run. Bash only.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -x "$ROOT/.venv/bin/fairbeam" ] && PATH="$ROOT/.venv/bin:$PATH"
USER_DIR=(--user-dir "$ROOT/user_dir" --task fairbeam_translation)
# Progress of fairseq's commands is drawn on file descriptor 3; their log goes to a file.
exec 3>&2
export FAIRBEAM_PROGRESS=3
trap 'if [ -t 3 ]; then printf "\033[?25h" >&3; fi' EXIT  # the bar hides the cursor

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }

# duration SECONDS: print a time as a person says it
duration() {
  if [ "$1" -ge 3600 ]; then echo "$(($1 / 3600)) h $(($1 % 3600 / 60)) min"
  elif [ "$1" -ge 60 ]; then echo "$(($1 / 60)) min $(($1 % 60)) s"
  else echo "$1 s"; fi
}

# stage NAME WHAT: announce a stage and end the one before
TIMES=() STAGE= STAGE_STARTED=0
stage() {
  end_stage
  STAGE=$1 STAGE_STARTED=$SECONDS
  printf '\n%s: %s\n' "$1" "$2"
}

end_stage() {
  [ -z "$STAGE" ] || TIMES+=("$STAGE $(duration $((SECONDS - STAGE_STARTED)))")
  STAGE=
}

# show_times: end the last stage and print the time of each; INSTALL_SECONDS is make's, from the environment
show_times() {
  end_stage
  local installing=${INSTALL_SECONDS:-0} list
  [ "$installing" -lt 5 ] || TIMES=("install $(duration "$installing")" "${TIMES[@]}")
  list=$(printf '%s, ' "${TIMES[@]}")
  printf '\nTime: %s; %s in all\n' "${list%, }" "$(duration $((SECONDS + installing)))"
}

# logged LOG COMMAND ...: append what a command prints to a log; show the end of that if it fails
logged() {
  local log=$1 status=0; shift
  "$@" >> "$log" 2>&1 || status=$?
  [ "$status" -eq 0 ] && return
  printf '\n%s stopped with exit status %s. %s ends with:\n\n' "$1" "$status" "$log" >&2
  tail -n 15 "$log" | cut -c -400 >&2
  exit "$status"
}

# prepare_data DATA SRC TGT OUT [option ...]: binarise once
prepare_data() {
  local data=$1 source=$2 target=$3 out=$4; shift 4
  if [ -d "$out/data-bin" ]; then
    stage prepare "$out/data-bin is there from an earlier run"
  else
    stage prepare "learn subwords and write $out/data-bin"
    fairbeam prepare "$data" "$source" "$target" "$out/data-bin" "$@"
  fi
}

# train_model OUT [option ...]: train, or go on where a killed run stopped; then average the last checkpoints
train_model() {
  local out=$1 from=; shift
  [ ! -e "$out/checkpoints/checkpoint_last.pt" ] || from=", going on after an earlier run's last checkpoint"
  stage train "${ARCH:-fairbeam_transformer_tiny}, log in $out/train.log$from"
  logged "$out/train.log" fairseq-train "$out/data-bin" "${USER_DIR[@]}" --save-dir "$out/checkpoints" --seed 1 \
    --share-all-embeddings --criterion fairbeam_label_smoothed_cross_entropy --label-smoothing 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --clip-norm 1.0 \
    --compute-dtype bfloat16 --precision auto --keep-last-epochs "${AVERAGE:-5}" --no-progress-bar \
    --log-format json --log-interval 50 "$@"
  local saved=("$out"/checkpoints/checkpoint[0-9]*.pt) last=${AVERAGE:-5}
  [ "${#saved[@]}" -ge "$last" ] || last=${#saved[@]}
  logged "$out/train.log" fairbeam average "$out/checkpoints/averaged.pt" --dir "$out/checkpoints" --last "$last"
}

# decode_test OUT SRC TGT SPLIT [option ...]: fairseq-generate, and its best outputs in source order
decode_test() {
  local out=$1 target=$3 split=$4; shift 4
  stage decode "translate the $split set with the mean of the last checkpoints"
  rm -rf "$out/generate-$split.txt"
  logged "$out/generate.log" fairseq-generate "$out/data-bin" "${USER_DIR[@]}" --path "$out/checkpoints/averaged.pt" \
    --gen-subset "$split" --batch-size 64 --precision auto --no-progress-bar --results-path "$out" "$@"
  grep '^D-' "$out/generate-$split.txt" | cut -c3- | sort -n | cut -f3- > "$out/$split.$target.hyp"
}

# show_samples SOURCE REFERENCE HYPOTHESES: three sentences with their translations
show_samples() {
  paste -d '\n' <(head -n 3 "$1") <(head -n 3 "$2") <(head -n 3 "$3") |
    awk '{ print (NR%3==1 ? "\n  source      " : NR%3==2 ? "  reference   " : "  hypothesis  ") $0 }'
}

# show_results OUT SRC TGT: what was made and how to go on
show_results() {
  printf '\nTranslations  %s\nModel         %s\nReport        %s\nTry it        echo "..." | %s translate %s\n' \
    "$1/test.$3.hyp" "$1/model" "$1/report.html" "$(command -v fairbeam)" "$1/model"
}
