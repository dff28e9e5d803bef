// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

namespace conclave::train {

// `lock` in a folder, held as long as the object lives; the system frees it when the process dies, however it
// dies.
class RunLock {
 public:
  RunLock() = default;
  // Throws Error that names the folder and the process that holds it, or why the lock cannot be made.
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;

 private:
  int descriptor_ = -1;
};

}  // namespace conclave::train
