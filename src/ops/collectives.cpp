// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/collectives.h"

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::ops {

comm::DataType data_type(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Int:
      return comm::DataType::kInt32;
    case c10::ScalarType::Long:
      return comm::DataType::kInt64;
    case c10::ScalarType::Float:
      return comm::DataType::kFloat32;
    case c10::ScalarType::Double:
      return comm::DataType::kFloat64;
    case c10::ScalarType::BFloat16:
      return comm::DataType::kBFloat16;
    default:
      throw Error(
          fmt::format("tensors of {} are not sent between ranks; make them int32, int64, fp32, fp64 or bf16",
                      c10::toString(type)));
  }
}

namespace {

comm::Place place_of(const at::Tensor& tensor) {
  return tensor.is_cpu() ? comm::Place::kHost : comm::Place::kDevice;
}

}  // namespace

comm::Buffer buffer_of(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr(), tensor.numel(), data_type(tensor.scalar_type()), place_of(tensor)};
}

comm::ConstBuffer const_buffer_of(const at::Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.numel(), data_type(tensor.scalar_type()), place_of(tensor)};
}

at::Tensor sum_over_ranks(const at::Tensor& tensor, comm::Communicator& ranks) {
  auto sum = tensor.detach().clone(at::MemoryFormat::Contiguous);
  ranks.all_reduce(buffer_of(sum));
  return sum;
}

}  // namespace conclave::ops
