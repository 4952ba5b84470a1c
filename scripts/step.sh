#!/usr/bin/env bash
# usage: scripts/step.sh LOG WHAT COMMAND [ARGUMENT ...]
#
# Run one step of the installation: print what it is and how long it took. What it prints goes to LOG, whose end is
# shown if it fails.
set -u
log=$1 what=$2; shift 2
printf '  %-60s' "$what"
{ printf '\n$'; printf ' %q' "$@"; printf '\n'; } >> "$log"
"$@" >> "$log" 2>&1
status=$?
if [ "$status" -ne 0 ]; then
  printf 'failed\n\n' >&2
  tail -n 20 "$log" >&2
  printf '\nThe whole log is in %s\n' "$log" >&2
  exit "$status"
fi
if [ "$SECONDS" -ge 60 ]; then printf '%3d min %2d s\n' $((SECONDS / 60)) $((SECONDS % 60)); else printf '%8d s\n' "$SECONDS"; fi
