// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

namespace emulator {

namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr unsigned kWarp = 32;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

// Contexts are entered once; then jumps go back and forth, which unlike swapcontext() costs no system call.
struct Fiber {
  ucontext_t context = {};
  jmp_buf here = {};
  bool entered = false;
  std::vector<unsigned char> stack = std::vector<unsigned char>(kStackBytes);
  State state = State::kDone;
  unsigned mask = 0;  // of the warp barrier
};

// What lanes bring to a barrier. Two sets, since a fast lane may bring its next value before a slow one has
// read this one.
struct Warp {
  unsigned char values[2][kWarp * 16] = {};
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned> calls;  // of exchange, by thread
  std::vector<unsigned char> shared;
  jmp_buf scheduler = {};
  unsigned current = 0;
  const std::function<void()>* thread = nullptr;
  std::exception_ptr failure;
  Order order = order_of_environment();
  std::mt19937 shuffle{7};
};
Machine machine;

void enter() {
  try {
    (*machine.thread)();
  } catch (...) {
    machine.failure = std::current_exception();
  }
  machine.fibers[machine.current].state = State::kDone;
  _longjmp(machine.scheduler, 1);
}

void resume(Fiber& fiber) {
  if (_setjmp(machine.scheduler) != 0) return;
  if (fiber.entered) _longjmp(fiber.here, 1);
  fiber.entered = true;
  setcontext(&fiber.context);
}

void wait(State state, unsigned mask) {
  auto& fiber = machine.fibers[machine.current];
  fiber.state = state;
  fiber.mask = mask;
  if (_setjmp(fiber.here) == 0) _longjmp(machine.scheduler, 1);
}

void prepare(unsigned threads) {
  if (machine.fibers.size() < threads) machine.fibers.resize(threads);
  machine.warps.assign((threads + kWarp - 1) / kWarp, {});
  machine.calls.assign(threads, 0);
  for (unsigned t = 0; t < threads; ++t) {
    auto& fiber = machine.fibers[t];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
    fiber.entered = false;
    fiber.state = State::kReady;
  }
}

// The lanes of a warp go on together, once all in their mask wait at the same call.
bool release_warp(unsigned first, unsigned threads) {
  bool any = false;
  for (unsigned t = first; t < std::min(first + kWarp, threads); ++t) {
    if (machine.fibers[t].state != State::kAtWarpBarrier) continue;
    const unsigned mask = machine.fibers[t].mask;
    bool together = true;
    for (unsigned l = 0; together && l < kWarp; ++l) {
      if (!(mask >> l & 1u)) continue;
      const unsigned other = first + l;
      together = other < threads && machine.fibers[other].state == State::kAtWarpBarrier &&
                 machine.fibers[other].mask == mask && machine.calls[other] == machine.calls[t];
    }
    if (!together) return any;
    for (unsigned l = 0; l < kWarp; ++l) {
      if (mask >> l & 1u) machine.fibers[first + l].state = State::kReady;
    }
    any = true;
  }
  return any;
}

// Lets the threads go on that wait for nobody any more; false if there are none.
bool release(unsigned threads) {
  bool all_at_barrier = true, any = false;
  for (unsigned t = 0; t < threads; ++t) all_at_barrier &= machine.fibers[t].state == State::kAtBlockBarrier;
  if (all_at_barrier) {
    for (unsigned t = 0; t < threads; ++t) machine.fibers[t].state = State::kReady;
    return true;
  }
  for (unsigned first = 0; first < threads; first += kWarp) any |= release_warp(first, threads);
  return any;
}

void run_block(unsigned threads) {
  prepare(threads);
  std::vector<unsigned> order(threads);
  std::iota(order.begin(), order.end(), 0u);
  if (machine.order == Order::kBackward) std::reverse(order.begin(), order.end());
  while (true) {
    if (machine.order == Order::kShuffled) std::shuffle(order.begin(), order.end(), machine.shuffle);
    for (const unsigned t : order) {
      if (machine.fibers[t].state != State::kReady) continue;
      machine.current = t;
      threadIdx.x = t;
      resume(machine.fibers[t]);
      if (machine.failure) std::rethrow_exception(std::exchange(machine.failure, nullptr));
    }
    bool done = true;
    for (unsigned t = 0; t < threads; ++t) done &= machine.fibers[t].state == State::kDone;
    if (done) return;
    if (!release(threads)) {
      throw std::logic_error("block " + std::to_string(blockIdx.x) +
                             ": threads wait for others that have ended or wait elsewhere");
    }
  }
}

}  // namespace

Order order_of_environment() {
  const char* name = std::getenv("CONCLAVE_EMULATOR_ORDER");
  if (!name || std::string(name) == "forward") return Order::kForward;
  if (std::string(name) == "backward") return Order::kBackward;
  if (std::string(name) == "shuffled") return Order::kShuffled;
  throw std::logic_error(std::string("CONCLAVE_EMULATOR_ORDER: ") + name);
}

void set_order(Order order) {
  machine.order = order;
}

void run(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  machine.thread = &thread;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  for (unsigned block = 0; block < config.gridDim.x; ++block) {
    blockIdx.x = block;
    machine.shared.assign(config.dynamicSmemBytes, 0xff);  // NaN
    run_block(config.blockDim.x);
  }
}

void* dynamic_shared() {
  return machine.shared.data();
}

void block_barrier() {
  wait(State::kAtBlockBarrier, 0);
}

int lane() {
  return static_cast<int>(machine.current % kWarp);
}

const unsigned char* exchange(unsigned mask, const void* mine, size_t bytes) {
  if (!(mask >> lane() & 1u)) throw std::logic_error("a lane calls with a mask that leaves it out");
  auto& values = machine.warps[machine.current / kWarp].values[machine.calls[machine.current]++ % 2];
  if (bytes > 0) std::memcpy(values + 16 * lane(), mine, bytes);
  wait(State::kAtWarpBarrier, mask);
  return values;
}

}  // namespace emulator
