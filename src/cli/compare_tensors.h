// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "conclave/train/tensor_set.h"

namespace conclave::cli {

// How two sets of tensors differ, a line for every tensor: it stands in one only, has another type or shape,
// or other values (with the largest absolute difference). `a` and `b` are what the lines call them. Empty:
// the same bits.
std::vector<std::string> compare_tensors(const train::TensorSet& first, const train::TensorSet& second,
                                         const std::string& a, const std::string& b);

}  // namespace conclave::cli
