// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/dispatcher.h"
#include "rows_of.h"

namespace conclave::moe {

namespace {

class LocalDispatcher : public Dispatcher {
 public:
  std::shared_ptr<DispatchLayout> plan(const SparsePlan&) override {
    return std::make_shared<DispatchLayout>();
  }
  void give_up(int64_t) override {}
  Dispatched dispatch(const SparsePlan& plan, DispatchLayout&, const at::Tensor& x_UD,
                      const at::Tensor& weights_A) override {
    return {.rows = rows_of(plan, x_UD), .weights_A = weights_A};
  }
  at::Tensor combine(const SparsePlan& plan, DispatchLayout&, const Dispatched&,
                     const at::Tensor& y_AD) override {
    return ops::combine_rows(y_AD, plan.unit_offsets_U1, plan.row_of_pair_N, /*whole=*/true);
  }
};

}  // namespace

std::unique_ptr<Dispatcher> make_local_dispatcher() {
  return std::make_unique<LocalDispatcher>();
}

}  // namespace conclave::moe
