// SPDX-License-Identifier: Apache-2.0
#pragma once
// torch's ProcessGroupGloo.hpp includes headers of gloo that its wheel does not ship. It holds gloo's types
// by smart pointer only, so these declarations are enough to compile it and to get the right object size.
// Seen by src/comm/gloo.cpp alone, which makes no object of a type declared here.
#include <chrono>
#include <string>
#include <vector>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
namespace transport {
class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};
}  // namespace transport
namespace rendezvous {
class Store {
 public:
  virtual ~Store() = default;
  virtual void set(const std::string& key, const std::vector<char>& value) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) = 0;
};
}  // namespace rendezvous
}  // namespace gloo
