// SPDX-License-Identifier: Apache-2.0
#include "conclave/core/error.h"

#include <string_view>

#include <fmt/format.h>

namespace conclave {

void throw_check_failure(const char* file, int line, const char* condition, const std::string& message) {
  std::string_view path(file);
  const auto slash = path.rfind('/');
  if (slash != std::string_view::npos) path.remove_prefix(slash + 1);
  throw Error(fmt::format("{} [{}:{}: {}]", message, path, line, condition));
}

}  // namespace conclave
