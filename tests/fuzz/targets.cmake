# SPDX-License-Identifier: Apache-2.0
# In the preset `fuzz` (clang): one libFuzzer program a law of laws.h, for example build/fuzz/bin/fuzz_yaml.
if(NOT CONCLAVE_FUZZ)
  return()
endif()

function(conclave_fuzz_target name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_executable(fuzz_${name} fuzz/fuzz_target.cpp fuzz/${name}_law.cpp ${arg_SOURCES})
  conclave_target(fuzz_${name})
  target_include_directories(fuzz_${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_definitions(fuzz_${name} PRIVATE CONCLAVE_LAW=${name}_law)
  target_link_libraries(fuzz_${name} PRIVATE ${arg_LINK} fmt::fmt GTest::gtest)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(fuzz_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin" UNITY_BUILD OFF)
  add_dependencies(fuzz_targets fuzz_${name})
endfunction()

add_custom_target(fuzz_targets)
set(train "${PROJECT_SOURCE_DIR}/src/train")
conclave_fuzz_target(yaml LINK conclave_config)
conclave_fuzz_target(jsonl LINK conclave_data)
conclave_fuzz_target(safetensors
  SOURCES "${train}/safetensors.cpp" "${train}/safetensors_dtypes.cpp" "${train}/json_reader.cpp"
  LINK conclave_config)
conclave_fuzz_target(metrics
  SOURCES "${train}/metrics_read.cpp" "${train}/json_reader.cpp"
  LINK conclave_config)
