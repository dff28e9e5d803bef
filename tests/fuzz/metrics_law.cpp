// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "conclave/core/error.h"
#include "conclave/train/metrics.h"
#include "laws.h"
#include "scratch_file.h"

namespace conclave::fuzz {

bool metrics_law(const std::string& text) {
  static const ScratchFile scratch("metrics.jsonl");
  const auto& file = scratch.write(text);
  try {
    const auto all = train::read_metrics(file);
    int64_t middle = 0;
    for (const auto& [name, series] : all) {
      for (size_t i = 1; i < series.steps.size(); ++i)
        require(series.steps[i] > series.steps[i - 1], "steps of " + name + " do not rise");
      middle = std::max(middle, series.steps[series.steps.size() / 2]);
    }
    train::rewind_metrics(file, middle);
    const auto rest = train::read_metrics(file);
    for (const auto& [name, series] : all) {
      size_t kept = 0;
      while (kept < series.steps.size() && series.steps[kept] <= middle) ++kept;
      require(rest.count(name) == (kept > 0) && (kept == 0 || rest.at(name).steps.size() == kept),
              "a rewind of " + name + " did not keep what it should");
    }
    return true;
  } catch (const Error& error) {
    require(error.kind() == Error::Kind::kData, std::string("not called bad data: ") + error.what());
    return false;
  }
}

}  // namespace conclave::fuzz
