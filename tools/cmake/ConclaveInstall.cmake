# SPDX-License-Identifier: Apache-2.0
# The library as one shared object, and what `cmake --install` puts where. docs/architecture.md says why it is shared.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
option(CONCLAVE_INSTALL_TORCH_RPATH
       "Installed files remember where LibTorch was at build time (it usually lies in no standard folder)" ON)

# Every room as it is, whole: a program may use what no other room does.
get_property(_rooms GLOBAL PROPERTY CONCLAVE_STATIC_LIBRARIES)
add_library(conclave SHARED "${PROJECT_SOURCE_DIR}/tools/cmake/empty.cpp")
add_library(conclave::conclave ALIAS conclave)
target_link_libraries(conclave PUBLIC conclave::torch_cpu PRIVATE ${_rooms})
list(JOIN _rooms "," _list)
set_target_properties(conclave PROPERTIES
  LINK_LIBRARY_OVERRIDE "WHOLE_ARCHIVE,${_list}"
  VERSION "${PROJECT_VERSION}" SOVERSION "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}"
  LINK_DEPENDS "${PROJECT_SOURCE_DIR}/tools/cmake/exports.map"
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
target_link_options(conclave PRIVATE "LINKER:--version-script=${PROJECT_SOURCE_DIR}/tools/cmake/exports.map"
                                     "LINKER:-Bsymbolic-functions")
target_include_directories(conclave PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
                                           "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_compile_features(conclave PUBLIC cxx_std_20)

file(RELATIVE_PATH _lib_from_bin "${CMAKE_INSTALL_FULL_BINDIR}" "${CMAKE_INSTALL_FULL_LIBDIR}")
set(_rpath "${CONCLAVE_TORCH_ROOT}/lib")
if(CONCLAVE_WITH_NCCL)
  cmake_path(GET CONCLAVE_NCCL_LIBRARY PARENT_PATH _nccl)
  list(APPEND _rpath "${_nccl}" "${CUDAToolkit_LIBRARY_DIR}")
endif()
if(NOT CONCLAVE_INSTALL_TORCH_RPATH)
  set(_rpath "")
endif()
set_target_properties(conclave PROPERTIES INSTALL_RPATH "$ORIGIN;${_rpath}")
set_target_properties(conclave_program PROPERTIES INSTALL_RPATH "$ORIGIN/${_lib_from_bin};${_rpath}")

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/conclave")
set(CONCLAVE_BUILT_WITH_TORCH "${CONCLAVE_TORCH_VERSION}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/tools/cmake/conclaveConfig.cmake.in"
  "${CMAKE_BINARY_DIR}/package/conclaveConfig.cmake" INSTALL_DESTINATION "${_package}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${CMAKE_BINARY_DIR}/package/conclaveConfigVersion.cmake"
  VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMinorVersion)
install(TARGETS conclave EXPORT conclaveTargets)
install(TARGETS conclave_program)
install(EXPORT conclaveTargets NAMESPACE conclave:: DESTINATION "${_package}")
install(FILES "${CMAKE_BINARY_DIR}/package/conclaveConfig.cmake"
              "${CMAKE_BINARY_DIR}/package/conclaveConfigVersion.cmake"
              "${PROJECT_SOURCE_DIR}/tools/cmake/ConclaveTorch.cmake" DESTINATION "${_package}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/conclave" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/README.md" "${PROJECT_SOURCE_DIR}/CHANGELOG.md"
        DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/docs" "${PROJECT_SOURCE_DIR}/examples" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/configs" DESTINATION "${CMAKE_INSTALL_DATADIR}/conclave")
