// SPDX-License-Identifier: Apache-2.0
#include "conclave/cuda/nccl.h"

#include <nccl.h>

#include <cstring>

static_assert(NCCL_VERSION_CODE >= 22803, "ncclAlltoAll came with NCCL 2.28.3");

namespace conclave::cuda {

namespace {

using comm::Buffer;
using comm::ConstBuffer;
using comm::DataType;
using comm::DeviceStream;
using comm::NcclHandle;
using comm::NcclResult;

ncclComm_t native(NcclHandle comm) {
  return reinterpret_cast<ncclComm_t>(comm);
}
ncclComm_t* native(NcclHandle* comm) {
  return reinterpret_cast<ncclComm_t*>(comm);
}
cudaStream_t native(DeviceStream stream) {
  return reinterpret_cast<cudaStream_t>(stream);
}
ncclDataType_t native(DataType type) {
  switch (type) {
    case DataType::kUInt8:
      return ncclUint8;
    case DataType::kInt32:
      return ncclInt32;
    case DataType::kInt64:
      return ncclInt64;
    case DataType::kFloat32:
      return ncclFloat32;
    case DataType::kFloat64:
      return ncclFloat64;
    case DataType::kBFloat16:
      return ncclBfloat16;
  }
  return ncclNumTypes;
}

NcclResult result(ncclResult_t code, NcclHandle comm = nullptr) {
  if (code == ncclSuccess) return {};
  if (code == ncclInProgress) return {NcclResult::Kind::kInProgress};
  const char* detail = ncclGetLastError(native(comm));
  std::string text = ncclGetErrorString(code);
  if (detail && *detail) text += std::string(": ") + detail;
  return {NcclResult::Kind::kFailed, text};
}

ncclConfig_t not_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

class Nccl : public comm::NcclApi {
 public:
  int version() override {
    int version = 0;
    return ncclGetVersion(&version) == ncclSuccess ? version : 0;
  }
  int built_version() override { return NCCL_VERSION_CODE; }
  NcclResult unique_id(comm::NcclId& id) override {
    ncclUniqueId made;
    static_assert(sizeof made.internal == sizeof(comm::NcclId));
    const auto code = ncclGetUniqueId(&made);
    std::memcpy(id.data(), made.internal, id.size());
    return result(code);
  }
  NcclResult init(NcclHandle& comm, int size, const comm::NcclId& id, int rank) override {
    ncclUniqueId native_id;
    std::memcpy(native_id.internal, id.data(), id.size());
    auto config = not_blocking();
    return result(ncclCommInitRankConfig(native(&comm), size, native_id, rank, &config));
  }
  NcclResult split(NcclHandle from, int color, int key, NcclHandle& comm) override {
    auto config = not_blocking();
    return result(ncclCommSplit(native(from), color, key, native(&comm), &config), from);
  }
  NcclResult async_error(NcclHandle comm) override {
    ncclResult_t state = ncclSuccess;
    const auto code = ncclCommGetAsyncError(native(comm), &state);
    return result(code == ncclSuccess ? state : code, comm);
  }
  NcclResult finalize(NcclHandle comm) override { return result(ncclCommFinalize(native(comm)), comm); }
  void destroy(NcclHandle comm) override { (void)ncclCommDestroy(native(comm)); }
  void abort(NcclHandle comm) override { (void)ncclCommAbort(native(comm)); }

  NcclResult group_start() override { return result(ncclGroupStart()); }
  NcclResult group_end() override { return result(ncclGroupEnd()); }
  NcclResult all_reduce(Buffer b, comm::Reduction reduction, NcclHandle comm, DeviceStream stream) override {
    const auto op = reduction == comm::Reduction::kSum ? ncclSum : ncclMax;
    return result(
        ncclAllReduce(b.data, b.data, elements(b), native(b.type), op, native(comm), native(stream)), comm);
  }
  NcclResult reduce_scatter(ConstBuffer in, Buffer out, NcclHandle comm, DeviceStream stream) override {
    return result(ncclReduceScatter(in.data, out.data, elements(out), native(in.type), ncclSum, native(comm),
                                    native(stream)),
                  comm);
  }
  NcclResult all_gather(ConstBuffer in, Buffer out, NcclHandle comm, DeviceStream stream) override {
    return result(
        ncclAllGather(in.data, out.data, elements(in), native(in.type), native(comm), native(stream)), comm);
  }
  NcclResult all_to_all(ConstBuffer in, Buffer out, int size, NcclHandle comm, DeviceStream stream) override {
    return result(ncclAlltoAll(in.data, out.data, elements(in) / static_cast<size_t>(size), native(in.type),
                               native(comm), native(stream)),
                  comm);
  }
  NcclResult broadcast(Buffer b, int root, NcclHandle comm, DeviceStream stream) override {
    return result(
        ncclBroadcast(b.data, b.data, elements(b), native(b.type), root, native(comm), native(stream)), comm);
  }
  NcclResult send(ConstBuffer in, int to, NcclHandle comm, DeviceStream stream) override {
    return result(ncclSend(in.data, elements(in), native(in.type), to, native(comm), native(stream)), comm);
  }
  NcclResult receive(Buffer out, int from, NcclHandle comm, DeviceStream stream) override {
    return result(ncclRecv(out.data, elements(out), native(out.type), from, native(comm), native(stream)),
                  comm);
  }

 private:
  static size_t elements(ConstBuffer b) { return static_cast<size_t>(b.count); }
};

}  // namespace

std::shared_ptr<comm::NcclApi> make_nccl() {
  return std::make_shared<Nccl>();
}

}  // namespace conclave::cuda
