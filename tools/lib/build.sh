# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Configuring and building a preset of CMakePresets.json. Needs CONCLAVE_TORCH in the environment.

# As many compilers as there are cores, and no more than memory allows at 1.5 GB each.
build_jobs() {
  local cores available
  cores="$(nproc)"
  available="$(awk '/^MemAvailable:/ {print int($2 / 1500000)}' /proc/meminfo)"
  ((available >= 1)) || available=1
  echo "${CMAKE_BUILD_PARALLEL_LEVEL:-$((available < cores ? available : cores))}"
}

# configure_preset PRESET: afresh if the presets, LibTorch or the place of the checkout changed. (That CMake files or
# lists of sources changed, ninja finds out by itself.)
configure_preset() {
  local folder="build/$1" key log="build/$1.configure.log" gpu=()
  # The program gets kernels where there is a GPU for them; elsewhere it would only be built longer.
  if [[ "$1" == release ]] && nvidia-smi -L 2>/dev/null | grep -q GPU; then gpu=(-DCONCLAVE_CUDA=AUTO); fi
  key="$({ cat CMakePresets.json && printf '%s\n' "$PWD" "$CONCLAVE_TORCH" "${gpu[@]}"; } | digest)"
  [[ -e "$folder/build.ninja" && "$(cat "$folder/.configured" 2>/dev/null)" == "$key" ]] && return 0
  say "configuring $folder"
  if ! cmake --preset "$1" --fresh "${gpu[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    fail "configuring the preset '$1' failed; see above"
  fi
  printf '%s\n' "$key" >"$folder/.configured"
}

# with_build_lock PRESET COMMAND...: two builds of one folder at once would spoil each other.
with_build_lock() {
  local lock="" status=0
  { exec {lock}>"build/$1.lock"; } 2>/dev/null || fail "cannot write $PWD/build/$1.lock"
  hold_lock "$lock" "build/$1.lock"
  "${@:2}" || status=$?
  exec {lock}>&-
  return "$status"
}
