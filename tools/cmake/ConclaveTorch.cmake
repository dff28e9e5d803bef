# SPDX-License-Identifier: Apache-2.0
# LibTorch 2.11 out of the torch wheel, imported by hand: no nvcc, no Python import and no CUDA library is needed.
# Result: conclave::torch_cpu (libtorch_cpu and libc10 only).
#
# Inputs: CONCLAVE_TORCH (the `torch` folder of a wheel or a LibTorch tree), else Torch_DIR, else the torch that
# Python3_EXECUTABLE can find. `tools/setup` finds or installs one and passes it.
set(CONCLAVE_TORCH "" CACHE PATH "Folder of LibTorch: .../site-packages/torch")
set(_conclave_torch_wanted "2.11")

set(_conclave_torch "${CONCLAVE_TORCH}")
if(NOT _conclave_torch AND Torch_DIR)
  get_filename_component(_conclave_torch "${Torch_DIR}/../../.." ABSOLUTE)
endif()
if(NOT _conclave_torch)
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_FOUND)
    execute_process(
      COMMAND "${Python3_EXECUTABLE}" -c
        "import importlib.util as u,pathlib as p;s=u.find_spec('torch');print(p.Path(s.origin).parent if s else '')"
      OUTPUT_VARIABLE _conclave_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
if(NOT _conclave_torch)
  message(FATAL_ERROR "LibTorch not found. Run tools/setup, which installs the pinned wheel and prints the path, "
                      "or pass -DCONCLAVE_TORCH=.../site-packages/torch.")
endif()

set(_conclave_torch_header "${_conclave_torch}/include/torch/headeronly/version.h")
if(NOT EXISTS "${_conclave_torch_header}")
  set(_conclave_torch_header "${_conclave_torch}/include/torch/csrc/api/include/torch/version.h")
endif()
if(NOT EXISTS "${_conclave_torch_header}" OR NOT EXISTS "${_conclave_torch}/include/c10/core/TensorImpl.h")
  message(FATAL_ERROR "${_conclave_torch} holds no complete C++ headers (a +cpu wheel?). "
                      "Use the plain wheel: pip install torch==2.11.0, or run tools/setup.")
endif()
file(STRINGS "${_conclave_torch_header}" _conclave_torch_lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3"
       CONCLAVE_TORCH_VERSION "${_conclave_torch_lines}")
if(NOT CONCLAVE_TORCH_VERSION MATCHES "^2\\.11\\.")
  message(FATAL_ERROR "LibTorch ${_conclave_torch_wanted} is required (its C++ ABI changes with every minor version), "
                      "found ${CONCLAVE_TORCH_VERSION} in ${_conclave_torch}. "
                      "Run tools/setup or pass -DCONCLAVE_TORCH=<a 2.11 tree>.")
endif()
set(CONCLAVE_TORCH_ROOT "${_conclave_torch}")
message(STATUS "LibTorch ${CONCLAVE_TORCH_VERSION}: ${CONCLAVE_TORCH_ROOT}")

if(NOT TARGET conclave::torch_cpu)
  add_library(conclave_torch_c10 SHARED IMPORTED GLOBAL)
  set_target_properties(conclave_torch_c10 PROPERTIES IMPORTED_LOCATION "${CONCLAVE_TORCH_ROOT}/lib/libc10.so")
  add_library(conclave_torch_cpu SHARED IMPORTED GLOBAL)
  set_target_properties(conclave_torch_cpu PROPERTIES
    IMPORTED_LOCATION "${CONCLAVE_TORCH_ROOT}/lib/libtorch_cpu.so"
    INTERFACE_LINK_LIBRARIES conclave_torch_c10)
  add_library(conclave::torch_cpu INTERFACE IMPORTED GLOBAL)
  target_include_directories(conclave::torch_cpu SYSTEM INTERFACE
    "${CONCLAVE_TORCH_ROOT}/include" "${CONCLAVE_TORCH_ROOT}/include/torch/csrc/api/include")
  target_compile_definitions(conclave::torch_cpu INTERFACE
    AT_PER_OPERATOR_HEADERS USE_DISTRIBUTED USE_C10D_GLOO)
  target_link_libraries(conclave::torch_cpu INTERFACE conclave_torch_cpu conclave_torch_c10)
endif()
