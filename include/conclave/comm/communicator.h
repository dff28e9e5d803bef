// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

// Collective operations over plain memory; a tensor is one contiguous buffer. Every rank of a communicator
// calls the same operations in the same order. An operation returns when this rank's part is done: `in` may
// be overwritten, `out` is complete. What cannot be finished (a peer died, the time is up, another rank
// called something else) is an Error of the kind kCommunication, and the communicator is of no use from then
// on.
namespace conclave::comm {

enum class DataType { kUInt8, kInt32, kInt64, kFloat32, kFloat64, kBFloat16 };
int64_t size_of(DataType type);  // bytes
const char* name_of(DataType type);

struct ConstBuffer {
  const void* data = nullptr;
  int64_t count = 0;  // elements, 0 is ordinary
  DataType type = DataType::kUInt8;
  int64_t num_bytes() const { return count * size_of(type); }
};
struct Buffer {
  void* data = nullptr;
  int64_t count = 0;
  DataType type = DataType::kUInt8;
  int64_t num_bytes() const { return count * size_of(type); }
  operator ConstBuffer() const { return {data, count, type}; }
};

enum class Reduction { kSum, kMax };

// What an exchange moves, for those who count: rows of the model, or what describes them.
enum class Content { kPayload, kMetadata };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Every rank's buffer becomes the sum or maximum over the ranks, the same bits on all. Integers and fp32 or
  // wider: bf16 would round at every hop, so it is refused.
  void all_reduce(Buffer buffer, Reduction reduction = Reduction::kSum);
  // out[r] is what rank r gave; out holds size() times in.count elements.
  void all_gather(ConstBuffer in, Buffer out);
  void broadcast(Buffer buffer, int root);
  // `in` holds in_counts[r] elements for every rank r, one after the other; `out` receives out_counts[r] of
  // each. in_counts[r] here is out_counts[this] at rank r. Zero is ordinary.
  void all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                  std::span<const int64_t> out_counts, Content content = Content::kPayload);
  void barrier();
  // Ranks that give the same color form a communicator, ordered by (key, rank). Called by all ranks.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

 private:
  virtual void do_all_reduce(Buffer buffer, Reduction reduction) = 0;
  virtual void do_all_gather(ConstBuffer in, Buffer out) = 0;
  virtual void do_broadcast(Buffer buffer, int root) = 0;
  virtual void do_all_to_all(ConstBuffer in, std::span<const int64_t> in_counts, Buffer out,
                             std::span<const int64_t> out_counts, Content content) = 0;
  virtual void do_barrier() = 0;
};

// The only rank of a run that was started alone; nothing is moved or waited for.
std::unique_ptr<Communicator> make_single_communicator();

}  // namespace conclave::comm
