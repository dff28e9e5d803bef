// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/config/load.h"
#include "conclave/train/resolve.h"

namespace conclave::train {

namespace {

using config::Node;
using Moves = std::vector<std::pair<std::string, std::string>>;

// Keys of the MoE part and of its router with their other spellings; the canonical name first.
const std::vector<std::vector<std::string>>& moe_spellings() {
  static const std::vector<std::vector<std::string>> names = {
      {"num_experts", "num_local_experts", "n_routed_experts", "num_moe_experts"},
      {"moe_intermediate_size", "moe_ffn_hidden_size"},
      {"num_shared_experts", "n_shared_experts"},
      {"shared_expert_intermediate_size"},
      {"first_k_dense_replace"},
      {"decoder_sparse_step"}};
  return names;
}
const std::vector<std::vector<std::string>>& router_spellings() {
  static const std::vector<std::vector<std::string>> names = {
      {"top_k", "num_experts_per_tok", "moe_router_topk"},
      {"score_function", "scoring_func", "moe_router_score_function"},
      {"norm_topk_prob", "normalize_topk_prob"},
      {"routed_scaling_factor", "moe_router_topk_scaling_factor", "scaling_factor"},
      {"capacity.factor", "moe_expert_capacity_factor"}};
  return names;
}

// Only what stands in another place than its canonical key; the owners of the keys know the spellings that
// stand in the same place.
Moves moved_keys() {
  Moves moves;
  for (const auto& names : moe_spellings()) {
    for (const auto& name : names) moves.emplace_back("model." + name, "model.moe." + names[0]);
  }
  for (const auto& names : router_spellings()) {
    const std::string to = "model.moe.router." + names[0];
    for (const auto& name : names) {
      if (name == "top_k" || name == "capacity.factor" || name == "score_function") continue;
      moves.emplace_back("model." + name, to);
      moves.emplace_back("model.moe." + name, to);
    }
  }
  moves.emplace_back("model.moe.router.moe_expert_capacity_factor", "model.moe.router.capacity.factor");
  moves.emplace_back("model.moe.allow_noncausal", "model.moe.router.allow_noncausal");
  return moves;
}

std::optional<Node::Entry> take_entry(Node& map, const std::string& key) {
  const auto it =
      std::find_if(map.entries.begin(), map.entries.end(), [&](const auto& e) { return e.key == key; });
  if (it == map.entries.end()) return std::nullopt;
  Node::Entry entry = std::move(*it);
  map.entries.erase(it);
  return entry;
}

Node& child_section(Node& map, const std::string& key, Node value, const config::Origin& origin) {
  if (Node* found = map.find(key)) return *found;
  value.origin = origin;
  map.entries.push_back({key, origin, std::move(value)});
  return map.entries.back().value;
}

bool has_loss(const Node& list, const std::string& type) {
  return std::any_of(list.items.begin(), list.items.end(), [&](const Node& item) {
    const Node* name = item.find("type");
    return name && name->text == type;
  });
}

// `section.key: weight` becomes an entry {type, weight} of model.moe.aux_losses.
void read_loss_weight(Node& model, bool in_moe, const std::string& key, const std::string& type,
                      config::Problems& problems) {
  Node* section = in_moe ? model.find("moe") : &model;
  if (!section) return;
  auto entry = take_entry(*section, key);
  if (!entry) return;
  const std::string path = fmt::format("model.{}{}", in_moe ? "moe." : "", key);
  Node& moe = child_section(model, "moe", Node::map(), entry->origin);
  Node& losses = child_section(moe, "aux_losses", Node::list({}), entry->origin);
  if (losses.kind != Node::Kind::kList || has_loss(losses, type)) {
    problems.add(entry->origin,
                 fmt::format("'{}' and model.moe.aux_losses both set the weight of {}", path, type),
                 fmt::format("keep {{type: {}, weight: ...}} in model.moe.aux_losses", type));
    return;
  }
  problems.note(entry->origin,
                fmt::format("'{}' is read as the weight of a {} entry of model.moe.aux_losses", path, type));
  Node item = Node::map();
  item.origin = entry->origin;
  Node name = Node::scalar(type, true);
  name.origin = entry->origin;
  item.entries.push_back({"type", entry->origin, std::move(name)});
  item.entries.push_back({"weight", entry->origin, std::move(entry->value)});
  losses.items.push_back(std::move(item));
}

}  // namespace

void read_aliases(Node& root, config::Problems& problems) {
  config::relocate_keys(root, moved_keys(), problems);
  if (Node* model = root.find("model"); model && model->kind == Node::Kind::kMap) {
    for (const bool in_moe : {false, true}) {
      for (const char* key : {"router_aux_loss_coef", "moe_aux_loss_coeff"})
        read_loss_weight(*model, in_moe, key, "load_balancing", problems);
      for (const char* key : {"router_z_loss_coef", "moe_z_loss_coeff"})
        read_loss_weight(*model, in_moe, key, "z_loss", problems);
    }
  }
  // `data.valid` may be a list of sources, like `data.train`.
  Node* data = root.find("data");
  Node* valid = data ? data->find("valid") : nullptr;
  if (!valid || valid->kind != Node::Kind::kList) return;
  Node section = Node::map();
  section.origin = valid->origin;
  section.entries.push_back({"sources", valid->origin, std::move(*valid)});
  *valid = std::move(section);
}

}  // namespace conclave::train
