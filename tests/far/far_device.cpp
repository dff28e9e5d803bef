// SPDX-License-Identifier: Apache-2.0
#include "far_device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/Resize.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "conclave/core/error.h"
#include "far_graphs.h"
#include "far_memory.h"

namespace conclave::far {

namespace {

constexpr auto kType = c10::DeviceType::HPU;

std::atomic<int64_t> num_waits{0}, num_uploads{0};
std::atomic<int> waits_forbidden{0};
std::atomic<size_t> memory_limit{SIZE_MAX};

void count_wait(const std::string& what) {
  ++num_waits;
  CONCLAVE_CHECK(waits_forbidden == 0, "the device would be waited for: " + what);
}

struct FarAllocator : public c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, kDevice};
    TORCH_CHECK_WITH(OutOfMemoryError, far::allocated() + bytes <= memory_limit, "the device has no ", bytes,
                     " bytes");
    void* place = far::allocate(bytes);
    c10::reportMemoryUsageToProfiler(place, static_cast<int64_t>(bytes), 0, 0, kDevice);
    return {place, place, &free_and_report, kDevice};
  }
  static void free_and_report(void* place) {
    c10::reportMemoryUsageToProfiler(place, -static_cast<int64_t>(far::size_of(place)), 0, 0, kDevice);
    release(place);
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_and_report; }
  void copy_data(void* to, const void* from, std::size_t bytes) const final {
    const Inside inside;
    default_copy_data(to, from, bytes);
  }
};

// A tensor on the host over the same memory.
at::Tensor on_host(const at::Tensor& t) {
  if (!t.defined() || t.device().type() != kType) return t;
  static std::byte nothing[64];
  void* data = t.numel() > 0 ? t.data_ptr() : nothing;
  return at::from_blob(data, t.sizes(), t.strides(), t.options().device(at::kCPU));
}

// A copy of a result in the device's memory.
at::Tensor to_device(const at::Tensor& t) {
  if (!t.defined() || t.device().type() == kType) return t;
  const auto copy = at::empty_strided(t.sizes(), t.strides(), t.options().device(kDevice));
  on_host(copy).copy_(t);
  return copy;
}

// Operations whose result's shape depends on values, or which look at values on the host, on a GPU.
const std::set<std::string>& waiting_operations() {
  static const std::set<std::string> names = {
      "aten::nonzero", "aten::masked_select", "aten::bincount", "aten::_unique2",
      "aten::equal",   "aten::unique_dim",    "aten::histc",    "aten::unique_consecutive",
      "aten::_unique", "aten::is_nonzero",    "aten::allclose", "aten::_local_scalar_dense"};
  return names;
}

bool waits(const c10::FunctionSchema& schema, const std::vector<c10::IValue>& arguments) {
  if (waiting_operations().count(schema.name()) > 0) return true;
  if (schema.name() == "aten::repeat_interleave" && schema.overload_name() == "Tensor")
    return arguments.back().isNone();
  if (schema.name() != "aten::index" && schema.name() != "aten::index_put_") return false;
  for (const auto& index : arguments.at(1).toListRef()) {  // bool masks
    if (index.isTensor() && index.toTensor().defined() && index.toTensor().scalar_type() == at::kBool)
      return true;
  }
  return false;
}

void check_place(const at::Tensor& t, const c10::FunctionSchema& schema) {
  CONCLAVE_CHECK(!t.defined() || t.device().type() == kType || t.dim() == 0,
                 fmt::format("{}: one tensor is on the device and another ({} dimensions) on the host",
                             schema.name(), t.dim()));
}

using IValues = std::vector<c10::IValue>;

// An operation by the CPU's kernels over the device's memory.
IValues compute(const c10::OperatorHandle& op, const IValues& arguments) {
  const auto& schema = op.schema();
  const size_t num_arguments = arguments.size();
  if (waits(schema, arguments)) count_wait(schema.name());

  const Inside inside;
  std::vector<std::pair<at::Tensor, at::Tensor>> resized;  // of ours, its stand-in
  IValues hosts;
  for (size_t i = 0; i < num_arguments; ++i) {
    const auto& a = arguments[i];
    const auto* alias = schema.arguments()[i].alias_info();
    if (a.isTensor()) {
      check_place(a.toTensor(), schema);
      auto host = on_host(a.toTensor());
      if (alias && alias->isWrite() && host.defined() && host.numel() == 0) {
        host = at::empty({0}, host.options());
        resized.emplace_back(a.toTensor(), host);
      }
      hosts.emplace_back(host);
    } else if (a.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& t : a.toTensorVector()) {
        check_place(t, schema);
        list.push_back(on_host(t));
      }
      hosts.emplace_back(list);
    } else if (a.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor> t : a.toOptionalTensorList()) {
        if (t) check_place(*t, schema);
        list.push_back(t ? std::optional(on_host(*t)) : std::nullopt);
      }
      hosts.emplace_back(list);
    } else if (a.isDevice()) {
      hosts.emplace_back(c10::Device(at::kCPU));
    } else {
      hosts.push_back(a);
    }
  }
  torch::jit::Stack results(hosts.begin(), hosts.end());
  op.callBoxed(&results);
  for (auto& [ours, host] : resized) {
    at::native::resize_(ours, host.sizes());
    if (host.numel() > 0) on_host(ours).copy_(host);
  }

  for (size_t r = 0; r < results.size(); ++r) {
    const auto* alias = schema.returns()[r].alias_info();
    if (alias) {  // what it wrote to
      CONCLAVE_CHECK(alias->isWrite(),
                     fmt::format("{} makes a view; the device has no such kernel", schema.name()));
      for (size_t i = 0; i < num_arguments; ++i) {
        const auto* of = schema.arguments()[i].alias_info();
        if (of && *of == *alias) results[r] = arguments[i];
      }
    } else if (results[r].isTensor()) {
      results[r] = to_device(results[r].toTensor());
    } else if (results[r].isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& t : results[r].toTensorVector()) list.push_back(to_device(t));
      results[r] = list;
    }
  }
  return results;
}

// The same tensors, without their history.
IValues kept(const IValues& values) {
  IValues all;
  for (const auto& v : values) {
    if (v.isTensor()) {
      all.emplace_back(v.toTensor().defined() ? v.toTensor().variable_data() : at::Tensor());
    } else if (v.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& t : v.toTensorVector()) list.push_back(t.defined() ? t.variable_data() : t);
      all.emplace_back(list);
    } else {
      all.push_back(v);
    }
  }
  return all;
}

// visit(tensor, other) for the tensors of two equal lists.
template <class Visit>
void for_each_pair(const IValues& ones, const IValues& others, Visit visit) {
  for (size_t i = 0; i < ones.size(); ++i) {
    if (ones[i].isTensor()) visit(ones[i].toTensor(), others[i].toTensor());
    if (!ones[i].isTensorList()) continue;
    const auto a = ones[i].toTensorVector(), b = others[i].toTensorVector();
    for (size_t t = 0; t < a.size(); ++t) visit(a[t], b[t]);
  }
}

void replace_by(const at::Tensor& t, const at::Tensor& value) {
  if (!t.defined() || t.numel() == 0 || t.is_alias_of(value)) return;
  const Inside inside;
  on_host(t).copy_(on_host(value));
}

void spoil(const at::Tensor& t) {
  if (!t.defined() || t.numel() == 0 || !t.is_non_overlapping_and_dense()) return;
  const Inside inside;
  std::memset(t.data_ptr(), 0xff, t.nbytes());
}

void run(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto first = stack->end() - static_cast<int64_t>(op.schema().arguments().size());
  const IValues arguments(first, stack->end());
  stack->erase(first, stack->end());
  const auto results = compute(op, arguments);
  if (is_recording()) {
    const bool writes_to_arguments = std::any_of(op.schema().returns().begin(), op.schema().returns().end(),
                                                 [](const auto& r) { return r.alias_info() != nullptr; });
    const auto made = kept(results);
    on_record(
        [op, arguments = kept(arguments), made] { for_each_pair(made, compute(op, arguments), replace_by); },
        writes_to_arguments ? std::function<void()>()
                            : [made] { for_each_pair(made, made, [](const auto& t, auto&) { spoil(t); }); });
  }
  stack->insert(stack->end(), results.begin(), results.end());
}

FarAllocator& allocator() {
  static FarAllocator all;
  return all;
}

at::Tensor far_empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                     std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DispatchKeySet keys(c10::DispatchKey::HPU);
  return at::detail::empty_generic(size, &allocator(), keys, dtype.value_or(at::kFloat), format);
}

at::Tensor far_empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                             std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                             std::optional<at::Device>, std::optional<bool>) {
  const c10::DispatchKeySet keys(c10::DispatchKey::HPU);
  return at::detail::empty_strided_generic(size, stride, &allocator(), keys, dtype.value_or(at::kFloat));
}

at::Tensor far_copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  const bool reads = from.device().type() == kType, writes = to.device().type() == kType;
  if (reads && !writes) count_wait("a copy to the host");
  if (writes && !reads) {
    ++num_uploads;
    CONCLAVE_CHECK(!is_recording(), "a copy from the host cannot be recorded");
  }
  const auto copy = [from = from.variable_data(), to = to.variable_data()] {
    const Inside inside;
    on_host(to).copy_(on_host(from));
  };
  copy();
  if (is_recording()) on_record(copy, {});
  return to;
}

at::Tensor far_copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  at::native::resize_(to, from.sizes());
  return far_copy_from(from, to, false);
}

int64_t plain_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const std::optional<at::Tensor>&, double, bool, std::optional<double>, bool) {
  return static_cast<int64_t>(sdp::SDPBackend::math);
}

TORCH_LIBRARY_IMPL(_, HPU, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>());
}
TORCH_LIBRARY_IMPL(aten, HPU, m) {
  m.impl("empty.memory_format", &far_empty);
  m.impl("empty_strided", &far_empty_strided);
  m.impl("_copy_from", &far_copy_from);
  m.impl("_copy_from_and_resize", &far_copy_from_and_resize);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("_grouped_mm", torch::CppFunction::makeFromBoxedFunction<&run>());  // else an expert at a time
  m.impl("unfold", &at::native::unfold);
  m.impl("resize_", &at::native::resize_);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
}

template <class T>
T kept_argument(const T& value) {
  if constexpr (std::is_same_v<T, at::Tensor>) return value.defined() ? value.variable_data() : value;
  return value;
}

// Kernels run inside the device and are recorded whole; what is made of operations records those.
template <class R, class... A>
std::function<R(A...)> inside(std::function<R(A...)> kernel) {
  return [kernel = std::move(kernel)](A... arguments) -> R {
    const Inside inside;
    if constexpr (std::is_void_v<R>) {
      if (is_recording()) {
        on_record(
            [kernel, ... kept = kept_argument<std::decay_t<A>>(arguments)] {
              const Inside again;
              kernel(kept...);
            },
            {});
      }
      const Unrecorded whole;
      kernel(arguments...);
    } else if constexpr (std::is_same_v<R, ops::SortedPairs>) {
      const bool record = is_recording();
      const Unrecorded whole;
      const auto made = kernel(arguments...);
      if (record) {
        on_record(
            [kernel, made, ... kept = kept_argument<std::decay_t<A>>(arguments)] {
              const Inside again;
              const auto sorted = kernel(kept...);
              replace_by(made.expert_offsets_E1, sorted.expert_offsets_E1);
              replace_by(made.pair_of_row_A, sorted.pair_of_row_A);
              replace_by(made.row_of_pair_N, sorted.row_of_pair_N);
            },
            [made] {
              spoil(made.expert_offsets_E1);
              spoil(made.pair_of_row_A);
              spoil(made.row_of_pair_N);
            });
      }
      return made;
    } else {
      return kernel(arguments...);
    }
  };
}

}  // namespace

}  // namespace conclave::far

namespace at::native {
REGISTER_HPU_DISPATCH(_fused_sdp_choice_stub, &conclave::far::plain_attention)
}
namespace conclave::far {

void install(ops::KernelTable t) {
  at::set_num_threads(1);  // memory may be open to one thread alone
  c10::SetAllocator(kType, &allocator());
  ops::for_each_entry(t, [](const char*, auto& kernel) { kernel = inside(std::move(kernel)); });
  ops::install_kernels(kType, std::move(t));
}

Counts counts() {
  return {num_waits, num_uploads};
}

void limit_memory(size_t bytes) {
  memory_limit = bytes;
}

NoWaits::NoWaits() {
  ++waits_forbidden;
}
NoWaits::~NoWaits() {
  --waits_forbidden;
}
Inside::Inside() {
  open_memory();
}
Inside::~Inside() {
  close_memory();
}

}  // namespace conclave::far
