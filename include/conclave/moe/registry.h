// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "conclave/config/problems.h"
#include "conclave/core/error.h"
#include "conclave/moe/balance.h"
#include "conclave/moe/loss.h"
#include "conclave/moe/router.h"

namespace conclave::moe {

// A plug-in table is a value: add to a copy and pass it on. Nothing registers itself.
template <class Entry>
class Table {
 public:
  explicit Table(std::string what) : what_(std::move(what)) {}
  void add(Entry entry) { entries_.push_back(std::move(entry)); }
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry& at(const std::string& name) const {
    std::vector<std::string> known;
    for (const auto& entry : entries_) {
      if (entry.name == name) return entry;
      known.push_back(entry.name);
    }
    throw Error(config::unknown_name(what_, name, known));
  }
  std::vector<config::PluginInfo> infos() const { return {entries_.begin(), entries_.end()}; }

 private:
  std::string what_;
  std::vector<Entry> entries_;
};

struct Registry {
  Table<RouterEntry> routers{"router"};
  Table<AuxLossEntry> aux_losses{"auxiliary loss"};
  Table<BalanceEntry> balance_updates{"balance update"};
  config::Tables tables() const;
};

// Everything that comes with the library: the lines of routers.def, losses.def and balance.def.
Registry builtin();

}  // namespace conclave::moe
