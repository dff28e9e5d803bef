// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/checked.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "conclave/comm/agreement.h"
#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

class CheckedCommunicator : public Communicator {
 public:
  explicit CheckedCommunicator(std::shared_ptr<Communicator> ranks) : ranks_(std::move(ranks)) {}
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  bool takes(Place place) const override { return ranks_->takes(place); }
  void abort(const std::string& reason) override { ranks_->abort(reason); }
  std::optional<std::string> stopped() const override { return ranks_->stopped(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    agree("split");
    return check_calls(ranks_->split(color, key));
  }

 private:
  void agree(const std::string& call) {
    ++sequence_;
    const auto calls = all_gather_texts(*ranks_, call);
    for (int r = 1; r < size(); ++r) {
      const auto& other = calls[static_cast<size_t>(r)];
      if (other == calls[0]) continue;
      throw Error(fmt::format("rank {} of {}, operation {}: rank 0 called {}, rank {} called {}", rank(),
                              size(), sequence_, calls[0], r, other),
                  Error::Kind::kCommunication);
    }
  }

  static std::string described(const char* what, ConstBuffer buffer) {
    return fmt::format("{} of {} {}{}", what, buffer.count, name_of(buffer.type), where(buffer));
  }
  static const char* where(ConstBuffer buffer) {
    return buffer.place == Place::kDevice ? " on the device" : "";
  }

  // What every rank means to send is what the other expects.
  void agree_on_counts(std::span<const int64_t> in_counts, std::span<const int64_t> out_counts) {
    const auto ranks = static_cast<size_t>(size());
    std::vector<int64_t> mine(in_counts.begin(), in_counts.end());
    mine.insert(mine.end(), out_counts.begin(), out_counts.end());
    std::vector<int64_t> all(2 * ranks * ranks);
    ranks_->all_gather({mine.data(), static_cast<int64_t>(mine.size()), DataType::kInt64},
                       {all.data(), static_cast<int64_t>(all.size()), DataType::kInt64});
    for (size_t from = 0; from < ranks; ++from) {
      for (size_t to = 0; to < ranks; ++to) {
        const int64_t sent = all[2 * ranks * from + to], expected = all[2 * ranks * to + ranks + from];
        if (sent == expected) continue;
        throw Error(
            fmt::format("rank {} of {}, operation {}: rank {} sends {} elements to rank {}, which expects {}",
                        rank(), size(), sequence_, from, sent, to, expected),
            Error::Kind::kCommunication);
      }
    }
  }

  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    agree(described(reduction == Reduction::kSum ? "all_reduce (sum)" : "all_reduce (max)", buffer));
    return ranks_->start_all_reduce(buffer, reduction);
  }
  Work do_reduce_scatter(ConstBuffer in, Buffer out, Content content) override {
    agree(described("reduce_scatter", in));
    return ranks_->start_reduce_scatter(in, out, content);
  }
  Work do_all_gather(ConstBuffer in, Buffer out, Content content) override {
    agree(described("all_gather", in));
    return ranks_->start_all_gather(in, out, content);
  }
  void do_broadcast(Buffer buffer, int root) override {
    agree(fmt::format("{} from {}", described("broadcast", buffer), root));
    ranks_->broadcast(buffer, root);
  }
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content content) override {
    agree(fmt::format("all_to_all of {}{}", name_of(in.type), where(in)));
    agree_on_counts(in_counts, out_counts);
    return ranks_->start_all_to_all(in, in_counts, out, out_counts, content);
  }
  Work do_all_to_all_equal(ConstBuffer in, Buffer out, Content content) override {
    agree(described("all_to_all in equal parts", in));
    return ranks_->start_all_to_all_equal(in, out, content);
  }
  // Between two ranks, which compare nothing beforehand.
  void do_send(ConstBuffer in, int to) override { ranks_->send(in, to); }
  void do_receive(Buffer out, int from) override { ranks_->receive(out, from); }
  void do_barrier() override {
    agree("barrier");
    ranks_->barrier();
  }

  std::shared_ptr<Communicator> ranks_;
  int64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> check_calls(std::shared_ptr<Communicator> ranks) {
  return std::make_unique<CheckedCommunicator>(std::move(ranks));
}

}  // namespace conclave::comm
