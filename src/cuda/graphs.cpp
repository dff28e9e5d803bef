// SPDX-License-Identifier: Apache-2.0
#include "conclave/cuda/graphs.h"

#include <vector>

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::cuda {

namespace {

class Graphs : public ops::DeviceGraphs {
 public:
  explicit Graphs(std::unique_ptr<GraphApi> api) : api_(std::move(api)) {}
  Graphs(const Graphs&) = delete;
  ~Graphs() override {
    for (const auto graph : recordings_) api_->release(graph);
    for (int i = 0; i < pools_; ++i) api_->release_pool();
  }

  void rehearse(const std::function<void()>& body) override {
    const Inside inside(*api_);
    body();
  }

  void record(const std::function<void()>& body) override {
    const Inside inside(*api_);
    const Pool pool(*api_);
    ++pools_;
    api_->begin_capture();
    try {
      body();
    } catch (const c10::OutOfMemoryError&) {  // the caller says who holds what
      api_->abandon_capture();
      throw;
    } catch (const c10::Error& error) {
      api_->abandon_capture();
      throw Error(
          fmt::format("the launches cannot be recorded: {}. Nothing that is recorded may wait for the "
                      "device or read memory of the host",
                      error.what_without_backtrace()));
    } catch (...) {
      api_->abandon_capture();
      throw;
    }
    recordings_.push_back(api_->end_capture());
  }

  void replay(size_t recording) override { api_->launch(recordings_.at(recording)); }

 private:
  struct Inside {
    explicit Inside(GraphApi& api) : api(api) { api.enter(); }
    ~Inside() { api.leave(); }
    Inside(const Inside&) = delete;
    GraphApi& api;
  };
  struct Pool {
    explicit Pool(GraphApi& api) : api(api) { api.begin_pool(); }
    ~Pool() { api.end_pool(); }
    Pool(const Pool&) = delete;
    GraphApi& api;
  };

  std::unique_ptr<GraphApi> api_;
  std::vector<Executable> recordings_;
  int pools_ = 0;
};

}  // namespace

std::unique_ptr<ops::DeviceGraphs> make_graphs(std::unique_ptr<GraphApi> api) {
  return std::make_unique<Graphs>(std::move(api));
}

}  // namespace conclave::cuda
