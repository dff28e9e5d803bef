// SPDX-License-Identifier: Apache-2.0
// Precompiled for everything that uses LibTorch: see conclave_use_torch() in ConclaveRoom.cmake. Files still
// include what they use; -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON shows which do not.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>
