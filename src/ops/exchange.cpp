// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/exchange.h"

#include <numeric>

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/ops/collectives.h"
#include "rows.h"
#include "storage.h"

namespace conclave::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor exchange(const at::Tensor& rows, std::vector<int64_t> send, std::vector<int64_t> receive,
                    comm::Communicator& ranks) {
  auto shape = rows.sizes().vec();
  shape[0] = std::accumulate(receive.begin(), receive.end(), int64_t{0});
  auto out = at::empty(shape, rows.options());
  int64_t values = 1;  // of one row
  for (size_t i = 1; i < shape.size(); ++i) values *= shape[i];
  for (auto& count : send) count *= values;
  for (auto& count : receive) count *= values;
  const auto type = data_type(rows.scalar_type());
  ranks.all_to_all({rows.const_data_ptr(), rows.numel(), type}, send,
                   {out.mutable_data_ptr(), out.numel(), type}, receive,
                   rows.dim() > 1 ? comm::Content::kPayload : comm::Content::kMetadata);
  return out;
}

// Keeps the communicator until the backward pass is over.
struct Holder : torch::CustomClassHolder {
  explicit Holder(std::shared_ptr<comm::Communicator> r) : ranks(std::move(r)) {}
  std::shared_ptr<comm::Communicator> ranks;
};

struct ExchangeRows : public torch::autograd::Function<ExchangeRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const std::vector<int64_t>& send,
                            const std::vector<int64_t>& receive,
                            const std::shared_ptr<comm::Communicator>& ranks) {
    ctx->saved_data["send"] = send;
    ctx->saved_data["receive"] = receive;
    ctx->saved_data["ranks"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(ranks));
    return exchange(rows.contiguous(), send, receive, *ranks);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = c10::static_intrusive_pointer_cast<Holder>(ctx->saved_data["ranks"].toCapsule());
    return {exchange(grads[0].contiguous(), ctx->saved_data["receive"].toIntVector(),
                     ctx->saved_data["send"].toIntVector(), *holder->ranks),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct GatherRows : public torch::autograd::Function<GatherRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& source_SD, const Rows& rows) {
    ctx->save_for_backward({rows.source_offsets_S1, rows.rows_N});
    ctx->saved_data["sources"] = source_SD.size(0);
    const auto x = source_SD.contiguous();
    return gather(x, const_data<int32_t>(rows.row_source_A), rows.num_rows(), rows.num_rows(),
                  x.scalar_type());
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {sum_rows(grads[0].contiguous(), saved[0], saved[1], ctx->saved_data["sources"].toInt(),
                     grads[0].scalar_type()),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor exchange_rows(const at::Tensor& rows, std::vector<int64_t> send, std::vector<int64_t> receive,
                         std::shared_ptr<comm::Communicator> ranks) {
  return ExchangeRows::apply(rows, send, receive, ranks);
}

at::Tensor gather_rows(const Rows& rows) {
  return GatherRows::apply(rows.source_SD, rows);
}

}  // namespace conclave::ops
