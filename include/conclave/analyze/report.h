// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "conclave/analyze/run_data.h"

namespace conclave::analyze {

// One self-contained HTML page (no script, nothing loaded from elsewhere) about one run, or about several
// with overlaid curves and a comparison. It is well-formed XML too. Numbers that a machine may want stand
// exactly in <data value="...">.
std::string render_report(const std::vector<RunData>& runs);

}  // namespace conclave::analyze
