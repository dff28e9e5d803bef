// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include "conclave/comm/communicator.h"

namespace conclave::ops {

// The type of a tensor's elements as communicators name it. Throws Error for one that is not sent.
comm::DataType data_type(c10::ScalarType type);

// The values of a contiguous tensor, wherever they are.
comm::Buffer buffer_of(const at::Tensor& tensor);
comm::ConstBuffer const_buffer_of(const at::Tensor& tensor);

// The sum of every rank's tensor, the same bits on all; a new tensor. fp32, fp64, int32 or int64, the same
// shape on every rank; not differentiable.
at::Tensor sum_over_ranks(const at::Tensor& tensor, comm::Communicator& ranks);

}  // namespace conclave::ops
