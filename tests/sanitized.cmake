# SPDX-License-Identifier: Apache-2.0
# In the preset `asan`: the target `sanitized` and the label of the same name, which `tools/test --asan` builds and
# runs. It is every test that needs no torch: torch's headers would cost more time than all of these together.
if(NOT CONCLAVE_SANITIZE)
  return()
endif()

# The part of `train` that reads and writes files.
set(train_sources background_save checkpoint checkpoint_manifest checkpoint_save checkpoint_store file_writer
    json_reader metrics metrics_read run_directory run_lock run_status safetensors safetensors_dtypes
    safetensors_index safetensors_writer signals tensorboard)
set(train_tests background_save checkpoint_damage checkpoint_full_disk checkpoint_kill checkpoint_store json_reader
    metrics metrics_mutation run_directory safetensors_fuzz safetensors_index safetensors signals tensorboard)
list(TRANSFORM train_sources PREPEND "${PROJECT_SOURCE_DIR}/src/train/")
list(TRANSFORM train_sources APPEND ".cpp")
foreach(name agreement communicator reduce)
  list(APPEND train_sources "${PROJECT_SOURCE_DIR}/src/comm/${name}.cpp")
endforeach()
list(TRANSFORM train_tests PREPEND "train/")
list(TRANSFORM train_tests APPEND "_test.cpp")
conclave_tests(train_files SOURCES ${train_sources} ${train_tests} fuzz/safetensors_law.cpp fuzz/metrics_law.cpp
               sanitized_test.cpp LINK conclave_config ${CONCLAVE_XXHASH_LIBRARY})

add_custom_target(sanitized DEPENDS core_tests config_tests data_tests train_files_tests)
set_tests_properties(core config data train_files PROPERTIES LABELS sanitized TIMEOUT 900)
