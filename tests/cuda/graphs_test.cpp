// SPDX-License-Identifier: Apache-2.0
// What recordings ask of CUDA and of the allocator, in which order, also where something fails.
#include "conclave/cuda/graphs.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/core/error.h"

namespace conclave::cuda {
namespace {

using Calls = std::vector<std::string>;

class FakeGraphApi : public GraphApi {
 public:
  FakeGraphApi(Calls& calls, std::string fails) : calls_(calls), fails_(std::move(fails)) {}
  void enter() override { call("enter"); }
  void leave() noexcept override { calls_.push_back("leave"); }
  void begin_pool() override { call("begin_pool"); }
  void end_pool() noexcept override { calls_.push_back("end_pool"); }
  void release_pool() noexcept override { calls_.push_back("release_pool"); }
  void begin_capture() override { call("begin_capture"); }
  Executable end_capture() override {
    call("end_capture");
    return Executable{++made_};
  }
  void abandon_capture() noexcept override { calls_.push_back("abandon_capture"); }
  void launch(Executable graph) override { call("launch " + std::to_string(static_cast<uintptr_t>(graph))); }
  void release(Executable graph) noexcept override {
    calls_.push_back("release " + std::to_string(static_cast<uintptr_t>(graph)));
  }

 private:
  void call(const std::string& what) {
    calls_.push_back(what);
    if (what == fails_) throw Error("fake: " + what);
  }
  Calls& calls_;
  std::string fails_;
  uintptr_t made_ = 0;
};

// What is called while `use` has the graphs, and at their end.
Calls calls_of(const std::function<void(ops::DeviceGraphs&)>& use, const std::string& fails = "") {
  Calls calls;
  use(*make_graphs(std::make_unique<FakeGraphApi>(calls, fails)));
  return calls;
}

std::string recording_error(ops::DeviceGraphs& graphs, const std::function<void()>& body) {
  try {
    graphs.record(body);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(Graphs, are_recorded_aside_in_memory_of_their_own_and_launched_where_the_caller_computes) {
  Calls calls;
  {
    const auto graphs = make_graphs(std::make_unique<FakeGraphApi>(calls, ""));
    graphs->rehearse([&] { calls.push_back("body"); });
    graphs->record([&] { calls.push_back("forward"); });
    graphs->record([&] { calls.push_back("backward"); });
    graphs->replay(0);
    graphs->replay(1);
    graphs->replay(0);
    EXPECT_THROW(graphs->replay(2), std::out_of_range);
  }
  EXPECT_EQ(calls, (Calls{"enter",         "body",       "leave",         "enter",       "begin_pool",
                          "begin_capture", "forward",    "end_capture",   "end_pool",    "leave",
                          "enter",         "begin_pool", "begin_capture", "backward",    "end_capture",
                          "end_pool",      "leave",      "launch 1",      "launch 2",    "launch 1",
                          "release 1",     "release 2",  "release_pool",  "release_pool"}));
}

TEST(Graphs, a_body_that_fails_leaves_nothing_recorded) {
  const Calls undone{"enter",    "begin_pool", "begin_capture", "abandon_capture",
                     "end_pool", "leave",      "release_pool"};
  EXPECT_EQ(calls_of([](ops::DeviceGraphs& graphs) {
              EXPECT_EQ(recording_error(graphs, [] { throw Error("mine"); }), "mine");
            }),
            undone);
  EXPECT_EQ(calls_of([](ops::DeviceGraphs& graphs) {
              const auto error = recording_error(
                  graphs, [] { TORCH_CHECK(false, "operation not permitted when stream is capturing"); });
              EXPECT_NE(error.find("cannot be recorded: operation not permitted"), std::string::npos);
              EXPECT_NE(error.find("wait for the device"), std::string::npos) << error;
              EXPECT_EQ(error.find("frame #"), std::string::npos) << error;
              EXPECT_THROW(graphs.replay(0), std::out_of_range);
            }),
            undone);
}

TEST(Graphs, running_out_of_memory_stays_what_it_is) {
  const auto calls = calls_of([](ops::DeviceGraphs& graphs) {
    EXPECT_THROW(graphs.record([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "no bytes"); }),
                 c10::OutOfMemoryError);
  });
  EXPECT_EQ(calls.at(3), "abandon_capture");
}

TEST(Graphs, what_fails_itself_is_undone_as_far_as_it_came) {
  const auto calls_when = [](const std::string& fails) {
    return calls_of(
        [&](ops::DeviceGraphs& graphs) { EXPECT_EQ(recording_error(graphs, [] {}), "fake: " + fails); },
        fails);
  };
  EXPECT_EQ(calls_when("enter"), (Calls{"enter"}));
  EXPECT_EQ(calls_when("begin_pool"), (Calls{"enter", "begin_pool", "leave"}));
  EXPECT_EQ(calls_when("begin_capture"),
            (Calls{"enter", "begin_pool", "begin_capture", "end_pool", "leave", "release_pool"}));
  EXPECT_EQ(calls_when("end_capture"), (Calls{"enter", "begin_pool", "begin_capture", "end_capture",
                                              "end_pool", "leave", "release_pool"}));
}

}  // namespace
}  // namespace conclave::cuda
