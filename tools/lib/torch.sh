# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Finds LibTorch or fetches the pinned wheel. find_torch sets `torch`, the folder with lib/ and include/.

torch_version=2.11.0
torch_download_kib=3000000 # wheels and their unpacked files lie side by side for a moment
torch_wheels=("torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
torch_cuda_wheels=(nvidia-cusparselt-cu13==0.8.0 nvidia-nvshmem-cu13==3.4.5 nvidia-cufile==1.15.1.6)
torch_python_wheels=(numpy==2.4.6 typing-extensions==4.16.0 filelock==4.2.12 sympy==1.14.0 mpmath==1.3.0
  networkx==3.6.1 jinja2==3.1.6 MarkupSafe==3.0.4 fsspec==2026.9.0)

# torch_problem FOLDER: why it cannot be used, or nothing.
torch_problem() {
  local header="$1/include/torch/headeronly/version.h" version unresolved
  [[ -e "$header" ]] || header="$1/include/torch/csrc/api/include/torch/version.h"
  if [[ ! -e "$1/lib/libtorch_cpu.so" || ! -e "$1/lib/libc10.so" ]]; then
    echo "it has no lib/libtorch_cpu.so and lib/libc10.so"
  elif [[ ! -e "$header" || ! -e "$1/include/c10/core/TensorImpl.h" ]]; then
    echo "its C++ headers are incomplete (a +cpu wheel?)"
  else
    version="$(awk '/#define TORCH_VERSION_(MAJOR|MINOR|PATCH) / {printf "%s%s", dot, $3; dot = "."}' "$header")"
    if [[ "$version" != "${torch_version%.*}".* ]]; then
      echo "it is version ${version:-unknown}; ${torch_version%.*} is needed," \
        "since the C++ ABI changes with every minor version"
      return
    fi
    unresolved="$(ldd "$1/lib/libtorch_cpu.so" 2>/dev/null |
      awk '/not found/ {printf "%s%s", comma, $1; comma = ", "}' || true)"
    [[ -z "$unresolved" ]] ||
      echo "libraries that it needs are not found: $unresolved (in the wheels nvidia-cuda-runtime, nvidia-cuda-cupti)"
  fi
}

loader_finds() {
  local known folder
  known="$(/sbin/ldconfig -p 2>/dev/null || true)"
  [[ "$known" == *"$1 "* ]] && return 0
  local IFS=:
  for folder in ${LD_LIBRARY_PATH:-}; do
    [[ -n "$folder" && -e "$folder/$1" ]] && return 0
  done
  return 1
}

# run_pip PYTHON PART LOG WHEEL...: into PART/site; temporary files in PART too, /tmp may be small.
run_pip() {
  local python="$1" part="$2" log="$3" quiet=(--quiet)
  shift 3
  mkdir -p "$part/tmp"
  [[ -t 2 ]] && quiet=()
  env -u PIP_PREFIX -u PIP_ROOT TMPDIR="$part/tmp" PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore \
    "$python" -m pip --disable-pip-version-check install "${quiet[@]}" --no-deps --no-compile --no-cache-dir \
    --only-binary :all: --target "$part/site" "$@" 2>"$log" >&2
}

# fetch_torch HOME: the wheels into HOME, which appears whole or not at all. The caller holds the lock.
fetch_torch() {
  local home="$1" part="$1.part" python wheels=("${torch_wheels[@]}") free log
  python="$(python_with pip)" ||
    fail "fetching LibTorch needs Python 3.10 to 3.14 with pip: install python3-pip, or set CONCLAVE_TORCH"
  # With a CUDA toolkit on the loader path these three complete it; without one only the CPU side can be used anyway.
  loader_finds libcublas.so.13 && wheels+=("${torch_cuda_wheels[@]}")
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    wheels+=("${torch_python_wheels[@]}")
  else
    say "$python is older than 3.11: only the C++ side of torch is installed"
  fi
  rm -rf "$part"
  free="$(free_kib "$(dirname "$home")")"
  ((free >= torch_download_kib)) ||
    fail "LibTorch needs $((torch_download_kib / 1000)) MB in $(dirname "$home"), $((free / 1000)) MB are free;" \
      "make room or set CONCLAVE_CACHE to a folder on another disk"
  say "fetching LibTorch $torch_version into $home: 0.6 to 0.8 GB, a few minutes"
  # shellcheck disable=SC2064
  trap "rm -rf $(printf '%q' "$part")" EXIT
  log="$part/pip.log"
  mkdir -p "$part"
  if ! run_pip "$python" "$part" "$log" "${wheels[@]}"; then
    tail_of "$log"
    grep -q 'No space left' "$log" && fail "the disk of $home is full; make room or set CONCLAVE_CACHE"
    fail "pip could not fetch torch $torch_version (its message is above). Without network: copy the folder" \
      "$home from a machine that has it, or set CONCLAVE_TORCH to a LibTorch ${torch_version%.*} tree"
  fi
  rm -rf "$home"
  mv "$part/site" "$home"
  rm -rf "$part"
  trap - EXIT
}

cached_torch() {
  local cache home problem
  cache="$(cache_root)"
  home="$cache/torch-$torch_version"
  torch="$home/torch"
  [[ -e "$torch" && -z "$(torch_problem "$torch")" ]] && return 0
  { mkdir -p "$cache" && [[ -w "$cache" ]]; } 2>/dev/null ||
    fail "cannot write into $cache; set CONCLAVE_CACHE to a writable folder"
  local lock
  exec {lock}>"$cache/torch.lock" || fail "cannot write $cache/torch.lock; set CONCLAVE_CACHE to a writable folder"
  hold_lock "$lock" "$cache/torch.lock"
  problem="$(torch_problem "$torch")"
  if [[ -n "$problem" ]]; then
    [[ ! -e "$home" ]] || say "replacing $home: $problem"
    fetch_torch "$home"
    problem="$(torch_problem "$torch")"
    [[ -z "$problem" ]] || fail "$torch was installed, but $problem"
  fi
  exec {lock}>&-
}

find_torch() {
  local named="" origin problem
  if [[ -n "${CONCLAVE_TORCH:-}" ]]; then
    named=CONCLAVE_TORCH torch="$CONCLAVE_TORCH"
  elif [[ -n "${Torch_DIR:-}" ]]; then
    named=Torch_DIR torch="$(realpath -ms -- "$Torch_DIR/../../..")"
  fi
  if [[ -n "$named" ]]; then
    problem="$(torch_problem "$torch")"
    [[ -z "$problem" ]] || fail "$named leads to $torch, but $problem. Name the torch folder of a" \
      "LibTorch ${torch_version%.*} tree, or unset $named to let this script find or fetch one"
    return 0
  fi
  origin="$(cd / && python3 -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.origin)' 2>/dev/null)" ||
    origin=""
  if [[ -n "$origin" ]]; then
    torch="$(dirname "$origin")"
    problem="$(torch_problem "$torch")"
    [[ -z "$problem" ]] && return 0
    say "skipping the torch of python3, $torch: $problem"
  fi
  cached_torch
}
