// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/counting.h"

#include <algorithm>
#include <thread>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::comm {

namespace {

class CountingCommunicator : public Communicator {
 public:
  CountingCommunicator(std::shared_ptr<Communicator> ranks, std::vector<int> nodes,
                       std::shared_ptr<Traffic> traffic, const Latency& latency)
      : ranks_(std::move(ranks)), nodes_(std::move(nodes)), traffic_(std::move(traffic)), latency_(latency) {
    CONCLAVE_CHECK(
        nodes_.size() == static_cast<size_t>(ranks_->size()),
        fmt::format("count_traffic: nodes of {} ranks, there are {}", nodes_.size(), ranks_->size()));
  }
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  bool takes(Place place) const override { return ranks_->takes(place); }

  void abort(const std::string& reason) override { ranks_->abort(reason); }
  std::optional<std::string> stopped() const override { return ranks_->stopped(); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    std::shared_ptr<Communicator> part = ranks_->split(color, key);
    std::vector<int32_t> nodes(static_cast<size_t>(part->size()));
    const int32_t mine = nodes_[static_cast<size_t>(rank())];
    part->all_gather({&mine, 1, DataType::kInt32}, {nodes.data(), part->size(), DataType::kInt32},
                     Content::kMetadata);
    return count_traffic(part, {nodes.begin(), nodes.end()}, traffic_, latency_);
  }

 private:
  LinkVolume& link_to(int rank) {
    const auto me = static_cast<size_t>(this->rank()), other = static_cast<size_t>(rank);
    return nodes_[me] == nodes_[other] ? traffic_->same_node : traffic_->other_nodes;
  }
  // bytes_to(r): of the message to rank r. Returns when the slowest of them may arrive.
  using Time = std::chrono::steady_clock::time_point;
  template <class BytesTo>
  Time count(Content content, BytesTo bytes_to) {
    ++traffic_->calls;
    std::chrono::microseconds latency{0};
    for (int r = 0; r < size(); ++r) {
      const int64_t bytes = bytes_to(r);
      if (r == rank() || bytes == 0) continue;
      auto& link = link_to(r);
      ++link.messages;
      (content == Content::kPayload ? link.payload_bytes : link.metadata_bytes) += bytes;
      latency = std::max(latency, &link == &traffic_->same_node ? latency_.same_node : latency_.other_nodes);
    }
    return std::chrono::steady_clock::now() + latency;
  }
  static Work not_before(Time time, Work work) {
    if (time <= std::chrono::steady_clock::now()) return work;
    return Work([time, work = std::make_shared<Work>(std::move(work))] {
      work->wait();
      std::this_thread::sleep_until(time);
    });
  }
  Work do_all_reduce(Buffer buffer, Reduction reduction) override {
    ++traffic_->calls;
    return ranks_->start_all_reduce(buffer, reduction);
  }
  Work do_reduce_scatter(ConstBuffer in, Buffer out, Content content) override {
    const auto arrival = count(content, [&](int) { return out.num_bytes(); });
    return not_before(arrival, ranks_->start_reduce_scatter(in, out, content));
  }
  Work do_all_gather(ConstBuffer in, Buffer out, Content content) override {
    const auto arrival = count(content, [&](int) { return in.num_bytes(); });
    return not_before(arrival, ranks_->start_all_gather(in, out, content));
  }
  void do_broadcast(Buffer buffer, int root) override {
    ++traffic_->calls;
    ranks_->broadcast(buffer, root);
  }
  Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                     std::span<const int64_t> out_counts, Content content) override {
    const auto arrival =
        count(content, [&](int r) { return in_counts[static_cast<size_t>(r)] * size_of(in.type); });
    return not_before(arrival, ranks_->start_all_to_all(in, in_counts, out, out_counts, content));
  }
  Work do_all_to_all_equal(ConstBuffer in, Buffer out, Content content) override {
    const auto arrival = count(content, [&](int) { return in.num_bytes() / size(); });
    return not_before(arrival, ranks_->start_all_to_all_equal(in, out, content));
  }
  void do_send(ConstBuffer in, int to) override {
    const auto arrival = count(Content::kPayload, [&](int r) { return r == to ? in.num_bytes() : 0; });
    ranks_->send(in, to);
    std::this_thread::sleep_until(arrival);
  }
  void do_receive(Buffer out, int from) override {
    ++traffic_->calls;
    ranks_->receive(out, from);
  }
  void do_barrier() override {
    ++traffic_->calls;
    ranks_->barrier();
  }

  std::shared_ptr<Communicator> ranks_;
  std::vector<int> nodes_;
  std::shared_ptr<Traffic> traffic_;
  Latency latency_;
};

}  // namespace

std::unique_ptr<Communicator> count_traffic(std::shared_ptr<Communicator> ranks,
                                            std::vector<int> node_of_rank, std::shared_ptr<Traffic> traffic,
                                            const Latency& latency) {
  return std::make_unique<CountingCommunicator>(std::move(ranks), std::move(node_of_rank), std::move(traffic),
                                                latency);
}

}  // namespace conclave::comm
