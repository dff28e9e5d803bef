# SPDX-License-Identifier: Apache-2.0
# CONCLAVE_CUDA: AUTO (with CUDA where nvcc is found), ON (an error where it is not), OFF. Sets CONCLAVE_WITH_CUDA and
# offers conclave_cuda_library(NAME SOURCES ...): a static library of .cu files, which know the toolkit only. Where NCCL
# is found too, CONCLAVE_WITH_NCCL is set, and conclave::nccl stands for it.
set(CONCLAVE_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set_property(CACHE CONCLAVE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CONCLAVE_CUDA_ARCHITECTURES "80-real;90a-real;100a-real" CACHE STRING "GPUs that the kernels are built for")

set(CONCLAVE_WITH_CUDA OFF)
if(CONCLAVE_CUDA)   # AUTO counts as true
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES "${CONCLAVE_CUDA_ARCHITECTURES}")
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit)
    if(CUDAToolkit_FOUND AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
      set(CONCLAVE_WITH_CUDA ON)
    endif()
  endif()
  if(CONCLAVE_WITH_CUDA)
    message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: kernels for ${CONCLAVE_CUDA_ARCHITECTURES}")
  elseif(CONCLAVE_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: no toolkit 13 (nvcc) found; Conclave is built for CPUs")
  else()
    message(FATAL_ERROR "CONCLAVE_CUDA=${CONCLAVE_CUDA}, but no CUDA toolkit 13 was found (nvcc: ${CMAKE_CUDA_COMPILER}): "
                        "put nvcc on PATH or set CUDACXX, or build for CPUs with -DCONCLAVE_CUDA=OFF")
  endif()
endif()
# CMake before 3.27 does not know nvcc's switch.
if(CONCLAVE_WITH_CUDA AND NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

# Beside the toolkit, or in a wheel beside torch's, which holds no libnccl.so.
set(CONCLAVE_WITH_NCCL OFF)
if(CONCLAVE_WITH_CUDA)
  find_path(CONCLAVE_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} "${CONCLAVE_TORCH_ROOT}/../nvidia/nccl/include")
  find_library(CONCLAVE_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR}
               "${CONCLAVE_TORCH_ROOT}/../nvidia/nccl/lib")
  if(CONCLAVE_NCCL_INCLUDE AND CONCLAVE_NCCL_LIBRARY)
    set(CONCLAVE_WITH_NCCL ON)
    add_library(conclave::nccl INTERFACE IMPORTED GLOBAL)
    target_include_directories(conclave::nccl INTERFACE "${CONCLAVE_NCCL_INCLUDE}")
    target_link_libraries(conclave::nccl INTERFACE "${CONCLAVE_NCCL_LIBRARY}")
    message(STATUS "NCCL: ${CONCLAVE_NCCL_LIBRARY}")
  else()
    message(STATUS "NCCL: nccl.h or libnccl.so.2 not found; nothing is built with it")
  endif()
endif()

function(conclave_cuda_library name)
  cmake_parse_arguments(arg "" "" "SOURCES" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES
    CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_RUNTIME_LIBRARY Shared UNITY_BUILD OFF
    POSITION_INDEPENDENT_CODE ON)
  # A kernel that spills registers is an error.
  target_compile_options(${name} PRIVATE --expt-relaxed-constexpr -Werror=all-warnings
    "SHELL:-Xptxas --warn-on-spills -Xptxas --warning-as-error" -Xcompiler=-Wall,-Wextra)
  target_link_libraries(${name} PUBLIC CUDA::cudart)
  find_program(CONCLAVE_CCACHE ccache)
  if(CONCLAVE_CCACHE)
    set_target_properties(${name} PROPERTIES CUDA_COMPILER_LAUNCHER "${CONCLAVE_CCACHE}")
  endif()
endfunction()
