// SPDX-License-Identifier: Apache-2.0
#include "conclave/moe/registry.h"

namespace conclave::moe {

#define CONCLAVE_ROUTER(entry) RouterEntry entry();
#include "routers/routers.def"
#undef CONCLAVE_ROUTER
#define CONCLAVE_AUX_LOSS(entry) AuxLossEntry entry();
#include "losses/losses.def"
#undef CONCLAVE_AUX_LOSS
#define CONCLAVE_BALANCE(entry) BalanceEntry entry();
#include "balance/balance.def"
#undef CONCLAVE_BALANCE

Registry builtin() {
  Registry registry;
#define CONCLAVE_ROUTER(entry) registry.routers.add(entry());
#include "routers/routers.def"
#undef CONCLAVE_ROUTER
#define CONCLAVE_AUX_LOSS(entry) registry.aux_losses.add(entry());
#include "losses/losses.def"
#undef CONCLAVE_AUX_LOSS
#define CONCLAVE_BALANCE(entry) registry.balance_updates.add(entry());
#include "balance/balance.def"
#undef CONCLAVE_BALANCE
  return registry;
}

config::Tables Registry::tables() const {
  return {{"routers", routers.infos()},
          {"aux_losses", aux_losses.infos()},
          {"balance_updates", balance_updates.infos()}};
}

}  // namespace conclave::moe
