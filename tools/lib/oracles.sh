# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A Python environment with the packages that tests compare with (oracles.txt). Convenience, never a condition: without
# it those tests skip.

# ensure_python_oracles TORCH: exports CONCLAVE_PYTHON if there is such an environment or one can be made.
ensure_python_oracles() {
  local pins=tools/lib/oracles.txt minor python venv lock
  if [[ -n "${CONCLAVE_PYTHON:-}" ]]; then
    say "Python packages of the tests: those of $CONCLAVE_PYTHON, as CONCLAVE_PYTHON asks"
    export CONCLAVE_PYTHON
    return 0
  fi
  # An extension module belongs to one minor version of Python, so LibTorch chooses the interpreter.
  minor="$(cd "$1" && for module in _C.cpython-3*.so; do
    module="${module#_C.cpython-3}"
    echo "${module%%-*}"
  done | head -n 1)"
  [[ "$minor" =~ ^[0-9]+$ ]] || minor=""
  if ! python="$(python_with ensurepip "$minor")"; then
    say "no Python 3.${minor:-10+} with venv (package python3-venv): tests that compare with Python packages will skip"
    return 0
  fi
  venv="$(cache_root)/oracles-$({ cat "$pins" && printf '%s\n' "$python" "$1"; } | digest)"
  if [[ ! -e "$venv/complete" || ! -x "$venv/bin/python" ]]; then
    { mkdir -p "$(cache_root)" && exec {lock}>"$(cache_root)/oracles.lock"; } 2>/dev/null ||
      { say "cannot write into $(cache_root): tests that compare with Python packages will skip"; return 0; }
    hold_lock "$lock" "$(cache_root)/oracles.lock"
    if [[ ! -e "$venv/complete" || ! -x "$venv/bin/python" ]] && ! build_oracles "$python" "$venv" "$pins" "$1"; then
      rm -rf "$venv"
      exec {lock}>&-
      say "tests that compare with Python packages will skip: they could not be fetched (no network?)"
      return 0
    fi
    exec {lock}>&-
  fi
  export CONCLAVE_PYTHON="$venv/bin/python"
}

install_pins() {
  env -u PIP_PREFIX -u PIP_ROOT -u PIP_TARGET PIP_USER=0 "$1" -m pip --disable-pip-version-check --retries 2 install \
    --quiet --no-deps --no-compile --only-binary :all: --no-cache-dir --requirement "$2"
}

# build_oracles PYTHON VENV PINS TORCH. The file `complete` is written last; without it the folder is made again.
build_oracles() {
  local python="$1" venv="$2" pins="$3" log="$2.log" packages
  say "fetching the Python packages of the tests (0.2 GB, unpacked 0.5 GB) into $venv"
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >"$log" 2>&1 || ! install_pins "$venv/bin/python" "$pins" >>"$log" 2>&1; then
    tail_of "$log"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  # The folder above LibTorch comes last on the path, so its packages do not replace those pinned here.
  packages="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  dirname "$4" >"$packages/conclave_torch.pth"
  "$venv/bin/python" -c 'import torch' 2>/dev/null ||
    say "this Python cannot import torch (no CUDA libraries?): tests that compare with it will skip"
  touch "$venv/complete"
}
