// SPDX-License-Identifier: Apache-2.0
#include "torch_library.h"

#include <dlfcn.h>

#include <filesystem>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fmt/format.h>

namespace conclave::cuda {

std::string load_torch_cuda() {
  Dl_info cpu = {};
  if (dladdr(reinterpret_cast<const void*>(&c10::impl::device_guard_impl_registry), &cpu) == 0)
    return "LibTorch was not found among the loaded libraries";
  const auto path = std::filesystem::path(cpu.dli_fname).parent_path() / "libtorch_cuda.so";
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr)
    return fmt::format("this LibTorch cannot use GPUs: {}", dlerror());
  return c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)
             ? ""
             : fmt::format("'{}' brings no GPUs", path.string());
}

}  // namespace conclave::cuda
