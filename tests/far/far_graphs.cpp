// SPDX-License-Identifier: Apache-2.0
#include "far_graphs.h"

#include <atomic>
#include <vector>

#include "far_device.h"

namespace conclave::far {

namespace {

struct Launch {
  std::function<void()> again, spoil;
};
using Tape = std::vector<Launch>;

// One recording at a time; backward passes launch from another thread.
std::atomic<Tape*> tape{nullptr};
std::atomic<bool> recording{false};
std::atomic<int64_t> replays{0};

class Graphs : public ops::DeviceGraphs {
 public:
  void rehearse(const std::function<void()>& body) override { body(); }
  void record(const std::function<void()>& body) override {
    Tape made;
    {
      const NoWaits no_waits;
      const Recording scope(made);
      body();
    }
    for (const auto& launch : made) {
      if (launch.spoil) launch.spoil();
    }
    tapes_.push_back(std::move(made));
  }
  void replay(size_t number) override {
    ++replays;
    for (const auto& launch : tapes_.at(number)) launch.again();
  }

 private:
  struct Recording {
    explicit Recording(Tape& to) {
      tape = &to;
      recording = true;
    }
    ~Recording() {
      recording = false;
      tape = nullptr;
    }
    Recording(const Recording&) = delete;
  };
  std::vector<Tape> tapes_;
};

}  // namespace

std::unique_ptr<ops::DeviceGraphs> make_graphs() {
  return std::make_unique<Graphs>();
}

int64_t num_replays() {
  return replays;
}

bool is_recording() {
  return recording;
}

void on_record(std::function<void()> again, std::function<void()> spoil) {
  tape.load()->push_back({std::move(again), std::move(spoil)});
}

Unrecorded::Unrecorded() : was_recording_(recording.exchange(false)) {}
Unrecorded::~Unrecorded() {
  recording = was_recording_;
}

}  // namespace conclave::far
