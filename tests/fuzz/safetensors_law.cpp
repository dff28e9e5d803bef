// SPDX-License-Identifier: Apache-2.0
#include "conclave/core/error.h"
#include "conclave/train/safetensors.h"
#include "conclave/train/safetensors_dtypes.h"
#include "laws.h"

namespace conclave::fuzz {

bool safetensors_law(const std::string& bytes) {
  using namespace train;
  try {
    const auto buffer = bytes_of(bytes);
    const auto content = parse_safetensors(buffer, "m.safetensors");
    uint64_t total = 0;
    for (const auto& tensor : content.tensors) {
      std::string problem;
      require(tensor_bytes(tensor.dtype, tensor.shape, problem) == tensor.bytes.size(),
              "size of " + tensor.name);
      require(tensor.bytes.empty() ||
                  (tensor.bytes.data() >= buffer.data() &&
                   tensor.bytes.data() + tensor.bytes.size() <= buffer.data() + buffer.size()),
              "place of " + tensor.name);
      total += tensor.bytes.size();
    }
    require(total <= bytes.size(), "more tensors than bytes");
    return true;
  } catch (const Error& error) {
    require(error.kind() == Error::Kind::kData, std::string("not called bad data: ") + error.what());
    return false;
  }
}

}  // namespace conclave::fuzz
