// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/moe/router.h"

namespace conclave::moe {

enum class Conditioning { kExample, kStatic };

// DSelect-k (Hazimeh et al., 2021; catalogue T30): k selectors, each choosing an expert by log2 E smooth
// bits. With the smooth step S(u) = 0 below -gamma/2, 1 above gamma/2, -2 u^3 / gamma^3 + 3 u / (2 gamma) +
// 1/2 between, selector s gives r^s_e = prod_b (S(z^s_b) if bit b of e is set else 1 - S(z^s_b)), bit 0 the
// most significant, and w = sum_s softmax(alpha)_s r^s. Dense while training, exactly sparse once the
// selectors saturate.
struct DSelectKOptions {
  int64_t num_selectors = 2;
  double gamma = 1.0;
  Conditioning conditioning = Conditioning::kExample;
  void fields(config::Fields& f);
};
std::shared_ptr<Router> make_dselect_k_router(const DSelectKOptions& options, const RouterShape& shape);
RouterEntry dselect_k_entry();

// S(u) as above; exactly 0 and 1 outside (-gamma/2, gamma/2), with zero gradient there.
at::Tensor smooth_step(const at::Tensor& u, double gamma);

// r [..., E] out of selector logits z [..., m], m = ceil(log2 E): the products above for the experts e < E.
at::Tensor selector_probabilities(const at::Tensor& z, int64_t num_experts, double gamma);

}  // namespace conclave::moe
