// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

// Files RUN/routing/step-NNNNNNNN.json: who went where in the evaluation after that many steps.
// docs/report.md describes the format. Plain data, no tensors.
namespace conclave::analyze {

inline constexpr const char* kRoutingFolder = "routing";

// What an amount counts. Gates that choose (top-k, expert choice): pairs (token, expert) as requested, before
// capacity. Gates that mix (Soft MoE, DSelect-k): the sum of |combine weight|.
enum class RoutingUnit { kPairs, kMass };

struct TokenAmount {
  int32_t token = 0;
  std::string bytes = {};  // text that the token stands for; empty: a document mark
  double amount = 0;       // to this expert
  double share = 0;        // of everything this token sent in this layer, [0, 1]
};

struct ExpertRecord {
  double requested = 0;
  double kept = 0;                            // after capacity; equals `requested` for mass
  std::vector<double> by_domain = {};         // requested, per domain of the record
  std::vector<TokenAmount> frequent = {};     // the largest amounts
  std::vector<TokenAmount> distinctive = {};  // the largest contributions to I(token; expert)
};

struct LayerRecord {
  int layer = 0;  // of the model, from 0
  RoutingUnit unit = RoutingUnit::kPairs;
  // Mean entropy of a token's router distribution over log E: 1 undecided, 0 certain. Absent for gates
  // without one.
  std::optional<double> router_entropy = {};
  std::optional<double> token_information_bits = {};  // I(token; expert); absent: the vocabulary is too large
  std::vector<ExpertRecord> experts = {};
};

struct RoutingRecord {
  int64_t step = 0;
  bool whole = false;  // all held-out text, else the fixed sample
  int64_t num_tokens = 0;
  std::vector<std::string> domains = {};
  std::vector<LayerRecord> layers = {};
};

std::string render_routing_record(const RoutingRecord& record);
// Throws Error (kData) that names the file and the place in it.
RoutingRecord read_routing_record(const std::filesystem::path& path);

std::filesystem::path routing_file(const std::filesystem::path& run, int64_t step);
// Steps with a file, rising; other files in the folder are passed over. Empty where there is no folder.
std::vector<int64_t> routing_steps(const std::filesystem::path& run);

}  // namespace conclave::analyze
