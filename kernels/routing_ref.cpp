// SPDX-License-Identifier: Apache-2.0
#include "routing.h"

namespace conclave::kernels {

void sort_pairs_ref(const PairSort& s) {
  int32_t row = 0;
  for (int64_t j = 0; j < s.n; ++j) s.row_of_pair[j] = -1;
  for (int64_t e = 0; e < s.num_experts; ++e) {
    s.offsets[e] = row;
    for (int64_t j = 0; j < s.n; ++j) {
      if (s.expert[j] != e || (s.kept && !s.kept[j]) || row - s.offsets[e] >= s.capacity) continue;
      s.row_of_pair[j] = row;
      s.pair_of_row[row] = static_cast<int32_t>(j);
      s.unit_of_row[row] = s.unit ? s.unit[j] : static_cast<int32_t>(j / s.pairs_per_unit);
      ++row;
    }
  }
  s.offsets[s.num_experts] = row;
}

}  // namespace conclave::kernels
