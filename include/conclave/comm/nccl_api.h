// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "conclave/comm/communicator.h"

// What the NCCL transport calls. An interface, so that its decisions (what is waited for, given up, aborted)
// are tested on machines without a GPU.
namespace conclave::comm {

// As ncclResult_t says. A call of a communicator that does not block may be under way when it returns.
struct NcclResult {
  enum class Kind { kOk, kInProgress, kFailed };
  Kind kind = Kind::kOk;
  std::string text = {};  // of a failure
};

using NcclId = std::array<char, 128>;
using NcclHandle = struct NcclHandleTag*;  // ncclComm_t
using DeviceStream = struct DeviceStreamTag*;
using DeviceEvent = struct DeviceEventTag*;

class NcclApi {
 public:
  virtual ~NcclApi() = default;
  virtual int version() = 0;        // of the library that was loaded: 22809 is 2.28.9
  virtual int built_version() = 0;  // of the header that this program was built with
  virtual NcclResult unique_id(NcclId& id) = 0;
  // Communicators never block. NCCL writes `comm` at once or any time later, so it has to stay where it is
  // until async_error() says that the call is done: of `comm` itself after init, of `from` after split.
  virtual NcclResult init(NcclHandle& comm, int size, const NcclId& id, int rank) = 0;
  virtual NcclResult split(NcclHandle from, int color, int key, NcclHandle& comm) = 0;
  virtual NcclResult async_error(NcclHandle comm) = 0;
  virtual NcclResult finalize(NcclHandle comm) = 0;
  virtual void destroy(NcclHandle comm) = 0;
  virtual void abort(NcclHandle comm) = 0;

  // Calls between them leave together; without a group every call is one.
  virtual NcclResult group_start() = 0;
  virtual NcclResult group_end() = 0;
  virtual NcclResult all_reduce(Buffer buffer, Reduction reduction, NcclHandle comm, DeviceStream stream) = 0;
  virtual NcclResult reduce_scatter(ConstBuffer in, Buffer out, NcclHandle comm, DeviceStream stream) = 0;
  virtual NcclResult all_gather(ConstBuffer in, Buffer out, NcclHandle comm, DeviceStream stream) = 0;
  // in.count / size elements for each of the `size` ranks.
  virtual NcclResult all_to_all(ConstBuffer in, Buffer out, int size, NcclHandle comm,
                                DeviceStream stream) = 0;
  virtual NcclResult broadcast(Buffer buffer, int root, NcclHandle comm, DeviceStream stream) = 0;
  virtual NcclResult send(ConstBuffer in, int to, NcclHandle comm, DeviceStream stream) = 0;
  virtual NcclResult receive(Buffer out, int from, NcclHandle comm, DeviceStream stream) = 0;
};

// Streams and events of one device. Throws Error when the device has failed.
class DeviceApi {
 public:
  virtual ~DeviceApi() = default;
  virtual DeviceStream current_stream() = 0;  // that the caller computes in
  virtual DeviceStream make_stream() = 0;     // beside it
  virtual void release(DeviceStream stream) = 0;
  virtual DeviceEvent record(DeviceStream stream) = 0;  // a new event behind what the stream holds
  virtual void wait(DeviceStream stream, DeviceEvent event) = 0;
  virtual bool is_done(DeviceEvent event) = 0;
  virtual void release(DeviceEvent event) = 0;
};

}  // namespace conclave::comm
