// SPDX-License-Identifier: Apache-2.0
#include "conclave/ops/exchange.h"

#include <algorithm>
#include <numeric>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "conclave/ops/collectives.h"
#include "rows.h"
#include "storage.h"

namespace conclave::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

comm::Content content_of(const at::Tensor& rows) {
  return rows.dim() > 1 ? comm::Content::kPayload : comm::Content::kMetadata;
}

at::Tensor exchange(const at::Tensor& rows, std::vector<int64_t> send, std::vector<int64_t> receive,
                    comm::Communicator& ranks, bool equal) {
  auto shape = rows.sizes().vec();
  shape[0] = std::accumulate(receive.begin(), receive.end(), int64_t{0});
  auto out = at::empty(shape, rows.options());
  if (equal) {
    ranks.all_to_all_equal(const_buffer_of(rows), buffer_of(out), content_of(rows));
    return out;
  }
  int64_t values = 1;  // of one row
  for (size_t i = 1; i < shape.size(); ++i) values *= shape[i];
  for (auto& count : send) count *= values;
  for (auto& count : receive) count *= values;
  ranks.all_to_all(const_buffer_of(rows), send, buffer_of(out), receive, content_of(rows));
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
                            const std::shared_ptr<comm::Communicator>& ranks, bool equal) {
    ctx->saved_data["equal"] = equal;
    ctx->saved_data["send"] = send;
    ctx->saved_data["receive"] = receive;
    ctx->saved_data["ranks"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(ranks));
    return exchange(rows.contiguous(), send, receive, *ranks, equal);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = c10::static_intrusive_pointer_cast<Holder>(ctx->saved_data["ranks"].toCapsule());
    return {
        exchange(grads[0].contiguous(), ctx->saved_data["receive"].toIntVector(),
                 ctx->saved_data["send"].toIntVector(), *holder->ranks, ctx->saved_data["equal"].toBool()),
        at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// Ranks have different numbers of rows, and the transports move equal parts: each is padded to the longest.

at::Tensor gather_padded(const at::Tensor& rows, const std::vector<int64_t>& counts,
                         comm::Communicator& ranks) {
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  auto shape = rows.sizes().vec();
  shape[0] = most;
  const auto mine = at::zeros(shape, rows.options());
  mine.narrow(0, 0, rows.size(0)).copy_(rows);
  shape.insert(shape.begin(), ranks.size());
  const auto all = at::empty(shape, rows.options());
  ranks.all_gather(const_buffer_of(mine), buffer_of(all), content_of(rows));
  std::vector<at::Tensor> parts;
  for (size_t r = 0; r < counts.size(); ++r)
    parts.push_back(all[static_cast<int64_t>(r)].narrow(0, 0, counts[r]));
  return at::cat(parts);
}

at::Tensor sum_padded(const at::Tensor& rows, const std::vector<int64_t>& counts, comm::Communicator& ranks) {
  const auto wide = rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  auto shape = rows.sizes().vec();
  shape[0] = most;
  const auto sum = at::empty(shape, rows.options().dtype(wide));
  shape.insert(shape.begin(), ranks.size());
  const auto parts = at::zeros(shape, rows.options().dtype(wide));
  int64_t begin = 0;
  for (size_t r = 0; r < counts.size(); ++r) {
    parts[static_cast<int64_t>(r)].narrow(0, 0, counts[r]).copy_(rows.narrow(0, begin, counts[r]));
    begin += counts[r];
  }
  ranks.reduce_scatter(const_buffer_of(parts), buffer_of(sum), content_of(rows));
  return sum.narrow(0, 0, counts[static_cast<size_t>(ranks.rank())]).to(rows.scalar_type());
}

// kGather: forward gathers, backward sums; else the other way round.
template <bool kGather>
struct RanksRows : public torch::autograd::Function<RanksRows<kGather>> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const std::vector<int64_t>& counts,
                            const std::shared_ptr<comm::Communicator>& ranks) {
    ctx->saved_data["counts"] = counts;
    ctx->saved_data["ranks"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(ranks));
    return kGather ? gather_padded(rows, counts, *ranks) : sum_padded(rows, counts, *ranks);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = c10::static_intrusive_pointer_cast<Holder>(ctx->saved_data["ranks"].toCapsule());
    const auto counts = ctx->saved_data["counts"].toIntVector();
    return {kGather ? sum_padded(grads[0], counts, *holder->ranks)
                    : gather_padded(grads[0], counts, *holder->ranks),
            at::Tensor(), at::Tensor()};
  }
};

struct GatherRows : public torch::autograd::Function<GatherRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& source_SD, const Rows& rows) {
    ctx->save_for_backward({rows.source_offsets_S1, rows.rows_N});
    ctx->saved_data["sources"] = source_SD.size(0);
    const auto x = source_SD.contiguous();
    return gather(x, rows.row_source_A, rows.num_rows(), x.scalar_type());
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
                         std::shared_ptr<comm::Communicator> ranks, bool equal) {
  return ExchangeRows::apply(rows, send, receive, ranks, equal);
}

at::Tensor gather_from_ranks(const at::Tensor& rows, std::vector<int64_t> counts,
                             std::shared_ptr<comm::Communicator> ranks) {
  if (!rows.is_floating_point()) return gather_padded(rows, counts, *ranks);
  return RanksRows<true>::apply(rows, counts, ranks);
}

at::Tensor sum_to_ranks(const at::Tensor& rows, std::vector<int64_t> counts,
                        std::shared_ptr<comm::Communicator> ranks) {
  return RanksRows<false>::apply(rows, counts, ranks);
}

at::Tensor gather_rows(const Rows& rows) {
  return GatherRows::apply(rows.source_SD, rows);
}

}  // namespace conclave::ops
