# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# System packages. An entry `package=command` also counts as present when the command is on PATH.

packages_needed=("g++=g++" "cmake=cmake" "ninja-build=ninja" "python3=python3" libfmt-dev libspdlog-dev libyaml-cpp-dev
  nlohmann-json3-dev libcli11-dev zlib1g-dev libzstd-dev libxxhash-dev)
packages_for_tests=(libgtest-dev libgmock-dev)
# For a machine where nothing can be installed: the above that are libraries, with what they load.
packages_packed=(libfmt-dev libfmt9 libspdlog-dev libspdlog1.10 libyaml-cpp-dev libyaml-cpp0.7 nlohmann-json3-dev
  libcli11-dev zlib1g-dev zlib1g libzstd-dev libzstd1 libxxhash-dev libxxhash0 libgtest-dev libgmock-dev)
packages_helpful=("git=git" "ccache=ccache" "mold=mold" "iproute2=ip" clang-format python3-pip python3-venv)
packages_complete=yes # no: tools/test would miss something, so the next set-up looks again

# missing_of ENTRY...: sets `missing` to the packages that are absent.
missing_of() {
  local installed entry package
  installed="$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${@%%=*}" 2>/dev/null || true)"
  missing=()
  for entry in "$@"; do
    package="${entry%%=*}"
    [[ $'\n'"$installed"$'\n' == *$'\n'"installed $package"$'\n'* ]] && continue
    [[ "$entry" == *=* ]] && command -v "${entry#*=}" >/dev/null && continue
    missing+=("$package")
  done
}

# apt_install PACKAGE...: false when it may not, false after saying why when it could not.
apt_install() {
  local as_root=() log
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  log="$(mktemp)"
  say "installing $# packages: $*"
  if ! "${as_root[@]}" apt-get -o APT::Update::Error-Mode=any -o DPkg::Lock::Timeout=300 update >"$log" 2>&1; then
    tail_of "$log"
    say "apt-get update failed (no network?); trying with the package lists that are there"
  fi
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y \
    --no-install-recommends "$@" >"$log" 2>&1 </dev/null; then
    tail_of "$log"
    say "apt-get install failed"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# ensure_packages WITH_TESTS(yes|no): installs what is missing. What cannot be installed is an error if the build
# needs it and a remark if it is only a comfort.
ensure_packages() {
  local missing
  if [[ -n "${CONCLAVE_SKIP_PACKAGES:-}" ]]; then
    say "packages are not checked, as CONCLAVE_SKIP_PACKAGES asks"
    return 0
  fi
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "no apt here, so packages are not checked; docs/dependencies.md lists what the build needs"
    return 0
  fi
  missing_of "${packages_needed[@]}" "${packages_for_tests[@]}" "${packages_helpful[@]}"
  ((${#missing[@]})) || return 0
  apt_install "${missing[@]}" && return 0

  local required=("${packages_needed[@]}")
  [[ "$1" == yes ]] && required+=("${packages_for_tests[@]}")
  local absent="${missing[*]}"
  missing_of "${required[@]}"
  if ((${#missing[@]})); then
    fail "missing packages: $absent. Without root or passwordless sudo they cannot be installed from here;" \
      "as root: apt-get update && apt-get install -y --no-install-recommends $absent"
  fi
  say "going on without: $absent (not needed for this)"
  missing_of "${packages_for_tests[@]}"
  # shellcheck disable=SC2034 # read by tools/setup
  ((${#missing[@]} == 0)) || packages_complete=no
}
