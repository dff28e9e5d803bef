# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Shared by the scripts in tools/. Everything that is said goes to standard error: standard output belongs to answers.

say() { printf 'tools/%s: %s\n' "${0##*/}" "$*" >&2; }
fail() {
  say "$@"
  exit 1
}

# Paths from the environment are relative to the caller's folder: call this before changing folders.
absolute_paths() {
  local name
  for name in CONCLAVE_TORCH Torch_DIR CONCLAVE_CACHE; do
    [[ -z "${!name:-}" ]] || export "$name=$(realpath -ms -- "${!name}")"
  done
}

# The folder for what is too big to fetch twice: LibTorch, the Python packages of the tests.
cache_root() {
  if [[ -n "${CONCLAVE_CACHE:-}" ]]; then
    printf '%s\n' "$CONCLAVE_CACHE"
  elif [[ -n "${XDG_CACHE_HOME:-}" || -n "${HOME:-}" ]]; then
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/conclave"
  else
    fail "neither CONCLAVE_CACHE nor HOME is set; set CONCLAVE_CACHE to a writable folder"
  fi
}

# hold_lock FD FILE: waits for the exclusive lock and says so when it has to wait. `exec {fd}>&-` lets go.
hold_lock() {
  flock -n "$1" && return 0
  say "another process holds $2; waiting for it"
  flock "$1"
}

digest() { sha256sum | cut -c 1-16; }

# tail_of FILE: the last lines of a log, indented, for an error message.
tail_of() { grep -v 'WARNING: Retrying' -- "$1" | tail -n 12 | sed 's/^/    /' >&2; }

free_kib() { df -Pk -- "$1" | awk 'NR == 2 {print $4}'; }

# python_with MODULE [MINOR]: the first interpreter that has MODULE and is 3.MINOR (default: 3.10 to 3.14).
python_with() {
  local candidate
  for candidate in python3 /usr/bin/python3 "python3.${2:-11}" python3.12 python3.13 python3.14 python3.10; do
    command -v "$candidate" >/dev/null || continue
    (cd / && "$candidate" - "$1" "${2:-}") 2>/dev/null <<'PY' && return 0
import importlib.util, sys
minor = sys.version_info[1]
wanted = minor == int(sys.argv[2]) if sys.argv[2] else 10 <= minor <= 14
if sys.version_info[0] != 3 or not wanted or not importlib.util.find_spec(sys.argv[1]): sys.exit(1)
print(sys.executable)
PY
  done
  return 1
}
