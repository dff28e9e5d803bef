// SPDX-License-Identifier: Apache-2.0
#include "far_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace conclave::far {

namespace {

constexpr size_t kRange = size_t{8} << 30;  // of addresses, not of memory
constexpr size_t kPage = 4096;

// Opening and closing by a protection key is a matter of one register and of one thread; where the processor
// has none, of all pages and of all threads.
struct Memory {
  std::mutex mutex;
  std::byte* base = nullptr;
  size_t used = 0, allocated = 0;
  int key = -1;
  int opened = 0;                               // without a key
  std::map<size_t, std::vector<void*>> unused;  // by size
  struct Size {
    size_t asked = 0, rounded = 0;
  };
  std::map<const void*, Size> sizes;

  Memory() {
    void* range = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) throw std::bad_alloc();
    base = static_cast<std::byte*>(range);
    key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    if (key >= 0) pkey_mprotect(base, kRange, PROT_READ | PROT_WRITE, key);
  }
  void protect(int how) {
    if (used > 0) mprotect(base, (used + kPage - 1) / kPage * kPage, how);
  }
};

Memory& memory() {
  static auto* all = new Memory;  // tensors may outlive every other object
  return *all;
}

thread_local int opened_by_thread = 0;  // with a key

}  // namespace

void* allocate(size_t bytes) {
  auto& m = memory();
  size_t size = 64;
  while (size < bytes) size *= 2;
  std::unique_lock lock(m.mutex);
  auto& unused = m.unused[size];
  void* place = nullptr;
  if (!unused.empty()) {
    place = unused.back();
    unused.pop_back();
  } else {
    if (m.used + size > kRange) throw std::bad_alloc();
    place = m.base + m.used;
    m.used += size;
    if (m.opened > 0) m.protect(PROT_READ | PROT_WRITE);
  }
  m.sizes[place] = {bytes, size};
  m.allocated += size;
  lock.unlock();
  open_memory();
  std::memset(place, 0xff, bytes);  // what was not written shows
  close_memory();
  return place;
}

void release(void* place) {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  const size_t size = m.sizes.at(place).rounded;
  m.unused[size].push_back(place);
  m.allocated -= size;
}

size_t size_of(const void* place) {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  return m.sizes.at(place).asked;
}

size_t allocated() {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  return m.allocated;
}

void open_memory() {
  auto& m = memory();
  if (m.key >= 0) {
    if (opened_by_thread++ == 0) pkey_set(m.key, 0);
    return;
  }
  const std::lock_guard lock(m.mutex);
  if (m.opened++ == 0) m.protect(PROT_READ | PROT_WRITE);
}

void close_memory() {
  auto& m = memory();
  if (m.key >= 0) {
    if (--opened_by_thread == 0) pkey_set(m.key, PKEY_DISABLE_ACCESS);
    return;
  }
  const std::lock_guard lock(m.mutex);
  if (--m.opened == 0) m.protect(PROT_NONE);
}

}  // namespace conclave::far
