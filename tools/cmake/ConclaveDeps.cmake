# SPDX-License-Identifier: Apache-2.0
# Third-party packages of Debian 12. Each is PRIVATE to the shared library: a consumer needs torch only.
find_package(fmt 9 REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json 3 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ZLIB REQUIRED)
find_library(CONCLAVE_ZSTD_LIBRARY zstd REQUIRED)
find_library(CONCLAVE_XXHASH_LIBRARY xxhash REQUIRED)

# The torch wheel ships its own fmt headers, which would shadow Debian's in every file that includes torch. A folder
# of links searched before torch's keeps one fmt in the project.
set(CONCLAVE_DEP_INCLUDE "${CMAKE_BINARY_DIR}/dep-include")
file(MAKE_DIRECTORY "${CONCLAVE_DEP_INCLUDE}")
foreach(_name fmt spdlog)
  find_path(_dir_${_name} NAMES ${_name}/${_name}.h ${_name}/core.h NO_CACHE REQUIRED)
  file(CREATE_LINK "${_dir_${_name}}/${_name}" "${CONCLAVE_DEP_INCLUDE}/${_name}" SYMBOLIC)
endforeach()
