// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "conclave/analyze/run_data.h"

// The parts of a report, in the order of the page; each is "" where the runs have nothing for it.
namespace conclave::analyze {

using Runs = std::vector<RunData>;

const char* report_style();

std::string report_header(const Runs& runs);
std::string report_comparison(const Runs& runs);  // several runs: numbers side by side, differing keys
std::string report_learning(const Runs& runs);
std::string report_balance(const Runs& runs);
std::string report_experts(const RunData& run);  // load over time, domains, tokens
std::string report_tokens(const RunData& run);
std::string report_mechanics(const Runs& runs);
std::string report_sample(const RunData& run);
std::string report_config(const RunData& run);

// ---- shared by the parts ----

// <section id> with a heading and a sentence that says how to read it; "" for an empty body.
std::string report_section(const std::string& id, const std::string& heading, const std::string& lead,
                           const std::string& body);
// Names of the runs, made unique by their folders where they are not.
std::vector<std::string> run_labels(const Runs& runs);
// Class of the colour of run i; layer i of n gets its place on a scale of its own.
std::string run_colour(size_t i);
std::string layer_colour(size_t i, size_t n);

// Last finite value; nothing without one.
std::optional<double> last_value(const RunData& run, const std::string& name);
// The final numbers, else the last periodic ones: "final" or "valid", "" for neither.
std::string validation_prefix(const RunData& run);

}  // namespace conclave::analyze
