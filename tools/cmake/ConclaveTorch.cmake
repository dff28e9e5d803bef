# SPDX-License-Identifier: Apache-2.0
# LibTorch out of the torch wheel, imported by hand: no nvcc, no Python import and no CUDA library is needed. Used by our
# own build and, installed beside conclaveConfig.cmake, by programs that link the library.
#
# conclave_find_torch(PROBLEM): makes conclave::torch_cpu (libtorch_cpu and libc10 only), sets CONCLAVE_TORCH_ROOT and
# CONCLAVE_TORCH_VERSION; or stores in PROBLEM what is wrong and what to do. The first of these that is given counts, and
# one that cannot be used is an error:
#   CONCLAVE_TORCH    the `torch` folder of a wheel, or a LibTorch tree; CMake variable, then environment variable
#   Torch_DIR         .../share/cmake/Torch; likewise
#   a CMAKE_PREFIX_PATH that holds share/cmake/Torch/TorchConfig.cmake
#   CONCLAVE_SETUP_ENV, a file that tools/setup wrote (set by our own build only)
#   the torch that Python3_EXECUTABLE finds
set(CONCLAVE_TORCH "" CACHE PATH "Folder of LibTorch: .../site-packages/torch")

# The folder, or "" in VARIABLE.
function(conclave_locate_torch variable)
  set(root "")
  foreach(given "${CONCLAVE_TORCH}" "$ENV{CONCLAVE_TORCH}")
    if(NOT root)
      set(root "${given}")
    endif()
  endforeach()
  foreach(given "${Torch_DIR}" "$ENV{Torch_DIR}")
    if(NOT root AND given AND NOT given MATCHES "NOTFOUND$")
      get_filename_component(root "${given}/../../.." ABSOLUTE)
    endif()
  endforeach()
  if(NOT root)
    # Not in the system's folders: a distribution's LibTorch of another version would hide the right one.
    find_path(root_of_prefix share/cmake/Torch/TorchConfig.cmake PATHS ${CMAKE_PREFIX_PATH} ENV CMAKE_PREFIX_PATH
              NO_DEFAULT_PATH NO_CACHE)
    if(root_of_prefix)
      set(root "${root_of_prefix}")
    endif()
  endif()
  if(NOT root AND CONCLAVE_SETUP_ENV AND EXISTS "${CONCLAVE_SETUP_ENV}")
    file(STRINGS "${CONCLAVE_SETUP_ENV}" line REGEX "^export CONCLAVE_TORCH=")
    string(REGEX REPLACE "^export CONCLAVE_TORCH=" "" line "${line}")
    string(REGEX REPLACE "\\\\(.)" "\\1" line "${line}")   # written by printf %q
    if(EXISTS "${line}/lib/libtorch_cpu.so")
      set(root "${line}")
    endif()
  endif()
  if(NOT root)
    find_package(Python3 QUIET COMPONENTS Interpreter)
    if(Python3_FOUND)
      execute_process(
        COMMAND "${Python3_EXECUTABLE}" -c
          "import importlib.util as u,pathlib as p;s=u.find_spec('torch');print(p.Path(s.origin).parent if s else '')"
        OUTPUT_VARIABLE root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
  endif()
  set(${variable} "${root}" PARENT_SCOPE)
endfunction()

# The version in a LibTorch folder's headers, or "" in VARIABLE when they are not complete.
function(conclave_torch_version root variable)
  set(version "")
  foreach(name headeronly/version.h csrc/api/include/torch/version.h)
    set(header "${root}/include/torch/${name}")
    if(NOT version AND EXISTS "${header}" AND EXISTS "${root}/include/c10/core/TensorImpl.h")
      file(STRINGS "${header}" lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
      string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" version "${lines}")
    endif()
  endforeach()
  set(${variable} "${version}" PARENT_SCOPE)
endfunction()

function(conclave_import_torch root)
  add_library(conclave_torch_c10 SHARED IMPORTED GLOBAL)
  set_target_properties(conclave_torch_c10 PROPERTIES IMPORTED_LOCATION "${root}/lib/libc10.so")
  add_library(conclave_torch_cpu SHARED IMPORTED GLOBAL)
  set_target_properties(conclave_torch_cpu PROPERTIES
    IMPORTED_LOCATION "${root}/lib/libtorch_cpu.so"
    INTERFACE_LINK_LIBRARIES conclave_torch_c10)
  add_library(conclave::torch_cpu INTERFACE IMPORTED GLOBAL)
  target_include_directories(conclave::torch_cpu SYSTEM INTERFACE
    "${root}/include" "${root}/include/torch/csrc/api/include")
  target_compile_definitions(conclave::torch_cpu INTERFACE
    AT_PER_OPERATOR_HEADERS USE_DISTRIBUTED USE_C10D_GLOO)
  target_link_libraries(conclave::torch_cpu INTERFACE conclave_torch_cpu conclave_torch_c10)
endfunction()

function(conclave_find_torch problem)
  # A package was built with one version; our own build takes the one that the sources are written for.
  set(wanted "2.11")
  if(CONCLAVE_BUILT_WITH_TORCH MATCHES "^([0-9]+\\.[0-9]+)")
    set(wanted "${CMAKE_MATCH_1}")
  endif()
  set(remedy "pass -DCONCLAVE_TORCH=.../site-packages/torch of a ${wanted} (pip install torch==${wanted}.0)")
  set(${problem} "" PARENT_SCOPE)
  conclave_locate_torch(root)
  if(NOT root)
    set(${problem} "LibTorch not found: ${remedy}; in a checkout of Conclave tools/setup fetches it." PARENT_SCOPE)
    return()
  endif()
  conclave_torch_version("${root}" version)
  if(NOT version)
    set(${problem} "${root} holds no complete C++ headers (a +cpu wheel, or not a folder of LibTorch): ${remedy}, the plain wheel."
        PARENT_SCOPE)
    return()
  endif()
  string(REPLACE "." "\\." pattern "^${wanted}.")
  if(NOT version MATCHES "${pattern}")
    if(CONCLAVE_BUILT_WITH_TORCH)
      set(why "Conclave was built with LibTorch ${CONCLAVE_BUILT_WITH_TORCH}")
      set(remedy "${remedy}, or build Conclave again with LibTorch ${version}")
    else()
      set(why "LibTorch ${wanted} is required")
    endif()
    set(${problem} "${why}, but ${root} is version ${version}; the C++ ABI of LibTorch changes with every minor version: ${remedy}."
        PARENT_SCOPE)
    return()
  endif()
  if(NOT TARGET conclave::torch_cpu)
    conclave_import_torch("${root}")
  endif()
  set(CONCLAVE_TORCH_ROOT "${root}" PARENT_SCOPE)
  set(CONCLAVE_TORCH_VERSION "${version}" PARENT_SCOPE)
endfunction()
