# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The end of tools/train: running the program with signals passed on, and showing what came out.

# run_and_forward COMMAND...: returns its exit code. A signal to this script reaches the command, which saves a
# checkpoint before it ends; without this the script would die first and leave it alone.
run_and_forward() {
  local child status=0 again interrupted signal
  set -m # its own process group, so that Ctrl-C comes once, from here
  "$@" <&0 &
  child=$!
  set +m
  for signal in INT TERM USR1 HUP; do
    # shellcheck disable=SC2064
    trap "interrupted=yes; kill -s $signal $child 2>/dev/null || true" "$signal"
  done
  while :; do
    interrupted=no again=0
    wait "$child" 2>/dev/null || again=$?
    ((again == 127)) || status=$again # 127: it had ended and told its code before
    [[ "$interrupted" == yes && "$again" != 127 ]] || break
  done
  trap - INT TERM USR1 HUP
  return "$status"
}

# write_sample PROGRAM RUN: RUN/sample.txt, if this program generates text. Nothing here is worth a failure.
write_sample() {
  "$1" generate --help >/dev/null 2>&1 || return 0
  if "$1" generate "$2" --max-tokens 600 --temperature 0.8 --seed 1 >"$2/sample.txt.tmp"; then
    mv "$2/sample.txt.tmp" "$2/sample.txt"
    printf '\n'
    head -c 600 "$2/sample.txt"
    printf '\n\n'
  else
    rm -f "$2/sample.txt.tmp"
    say "no sample: generating text failed; see above"
  fi
}

# show_result PROGRAM RUN: a sample, and the report with its path.
show_result() {
  [[ -d "$2" ]] || return 0
  write_sample "$1" "$2"
  local report
  if report="$("$1" report "$2")"; then
    printf 'report: %s\n' "$report"
  else
    say "no report; see above. Again: $1 report $2"
  fi
}
