// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

// Collective operations over plain memory; a tensor is one contiguous buffer. Every rank of a communicator
// starts the same operations in the same order, and waits for them in the same order. An operation returns,
// and Work::wait() does, when this rank's part is done: `in` may be overwritten, `out` is complete. What
// cannot be finished (a peer died, the time is up, another rank called something else) is an Error of the
// kind kCommunication, and the communicator is of no use from then on.
namespace conclave::comm {

enum class DataType { kUInt8, kInt32, kInt64, kFloat32, kFloat64, kBFloat16 };
int64_t size_of(DataType type);  // bytes
const char* name_of(DataType type);

// Where a buffer lies: in memory of the host, or of the device that this rank computes on.
enum class Place { kHost, kDevice };

struct ConstBuffer {
  const void* data = nullptr;
  int64_t count = 0;  // elements, 0 is ordinary
  DataType type = DataType::kUInt8;
  Place place = Place::kHost;
  int64_t num_bytes() const { return count * size_of(type); }
};
struct Buffer {
  void* data = nullptr;
  int64_t count = 0;
  DataType type = DataType::kUInt8;
  Place place = Place::kHost;
  int64_t num_bytes() const { return count * size_of(type); }
  operator ConstBuffer() const { return {data, count, type, place}; }
};

enum class Reduction { kSum, kMax };

// What an exchange moves, for those who count: rows of the model, or what describes them.
enum class Content { kPayload, kMetadata };

// An operation that was started and runs beside the caller. Its buffers belong to it until wait() has
// returned.
class [[nodiscard]] Work {
 public:
  Work() = default;  // is done
  // `finish` blocks until it is done, and throws what went wrong.
  explicit Work(std::function<void()> finish);
  Work(Work&& other) noexcept;
  Work& operator=(Work&& other) noexcept;
  ~Work();  // waits; an error is lost then
  void wait();

 private:
  std::function<void()> finish_ = {};
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Whether buffers that lie there are exchanged; others are refused with an Error, as are two buffers of one
  // operation that lie in different places. All ranks call an operation for the same place.
  virtual bool takes(Place place) const { return place == Place::kHost; }

  // Every rank's buffer becomes the sum or maximum over the ranks, the same bits on all. Integers and fp32 or
  // wider: bf16 would round at every hop, so it is refused.
  void all_reduce(Buffer buffer, Reduction reduction = Reduction::kSum);
  Work start_all_reduce(Buffer buffer, Reduction reduction = Reduction::kSum);
  // `in` holds out.count elements for every rank; out is the sum of what all gave for this one, added in the
  // order of the ranks. Types as of all_reduce.
  void reduce_scatter(ConstBuffer in, Buffer out, Content content = Content::kPayload);
  Work start_reduce_scatter(ConstBuffer in, Buffer out, Content content = Content::kPayload);
  // out[r] is what rank r gave; out holds size() times in.count elements.
  void all_gather(ConstBuffer in, Buffer out, Content content = Content::kPayload);
  Work start_all_gather(ConstBuffer in, Buffer out, Content content = Content::kPayload);
  void broadcast(Buffer buffer, int root);
  // `in` holds in_counts[r] elements for every rank r, one after the other; `out` receives out_counts[r] of
  // each. in_counts[r] here is out_counts[this] at rank r. Zero is ordinary.
  void all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Content content = Content::kPayload);
  Work start_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                        std::span<const int64_t> out_counts, Content content = Content::kPayload);
  // all_to_all where every rank sends every rank the same number of elements, in.count / size(). All ranks
  // call this one then: a transport may move equal parts in another way.
  void all_to_all_equal(ConstBuffer in, Buffer out, Content content = Content::kPayload);
  Work start_all_to_all_equal(ConstBuffer in, Buffer out, Content content = Content::kPayload);
  // Only the two ranks call: what one sends to the other arrives in the order of sending, in buffers of the
  // same count and type.
  void send(ConstBuffer in, int to);
  void receive(Buffer out, int from);
  void barrier();
  // This rank gives up, and why: what the others wait for, here and in every communicator of the run, fails
  // soon and names rank and reason. Called by one rank alone; nothing is waited for.
  virtual void abort(const std::string& reason) = 0;
  // Why the run is over, if a rank has given up and this one has heard of it.
  virtual std::optional<std::string> stopped() const { return {}; }
  // Ranks that give the same color form a communicator, ordered by (key, rank). Called by all ranks.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

 private:
  virtual Work do_all_reduce(Buffer buffer, Reduction reduction) = 0;
  // By all_to_all_equal and a sum, for those that take buffers on the host.
  virtual Work do_reduce_scatter(ConstBuffer in, Buffer out, Content content);
  virtual Work do_all_gather(ConstBuffer in, Buffer out, Content content) = 0;
  virtual void do_broadcast(Buffer buffer, int root) = 0;
  // The counts live until it returns only.
  virtual Work do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                             std::span<const int64_t> out_counts, Content content) = 0;
  // By do_all_to_all.
  virtual Work do_all_to_all_equal(ConstBuffer in, Buffer out, Content content);
  virtual void do_send(ConstBuffer in, int to) = 0;
  virtual void do_receive(Buffer out, int from) = 0;
  virtual void do_barrier() = 0;
};

// The only rank of a run that was started alone; nothing is moved or waited for.
std::unique_ptr<Communicator> make_single_communicator();

}  // namespace conclave::comm
