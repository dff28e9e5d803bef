// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/model_state.h"

#include <algorithm>
#include <set>
#include <utility>

#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/tensor_set.h"

namespace conclave::train {

namespace {

std::string with_expert(std::string name, int64_t expert) {
  const auto at = name.find("{expert}");
  return at == std::string::npos ? name : name.replace(at, 8, fmt::format("{}", expert));
}

const char* dtype_name(c10::ScalarType dtype) {
  if (dtype == c10::ScalarType::Float) return "F32";
  if (dtype == c10::ScalarType::Double) return "F64";
  throw Error(fmt::format("checkpoint: no tensors of type {}", c10::toString(dtype)));
}

TensorView view_of(const std::string& name, const at::Tensor& tensor) {
  CONCLAVE_CHECK(tensor.is_contiguous(), fmt::format("checkpoint: '{}' is not contiguous", name));
  const auto on_host = std::make_shared<const at::Tensor>(tensor.cpu());  // itself, on the CPU
  return {.name = name,
          .dtype = dtype_name(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(on_host->const_data_ptr()), on_host->nbytes()},
          .owner = on_host};
}

void copy_into(const NamedSlice& target, const std::string& name, const TensorSet& set) {
  const TensorView& source = set.outline(name);
  auto shape = target.tensor.sizes().vec();
  if (!shape.empty()) shape[0] = target.num_rows;
  if (source.shape != shape || source.dtype != dtype_name(target.tensor.scalar_type())) {
    throw Error(
        fmt::format("{}: tensor '{}' is {} [{}], the model needs {} [{}]; continue with the config of the "
                    "checkpoint",
                    set.file_of(name), name, source.dtype, fmt::join(source.shape, ", "),
                    dtype_name(target.tensor.scalar_type()), fmt::join(shape, ", ")),
        Error::Kind::kData);
  }
  const auto on_host = target.tensor.is_cpu() ? target.tensor : at::empty_like(target.tensor, at::kCPU);
  set.read_rows(name, target.first_row, target.tensor.dim() == 0 ? 1 : target.tensor.size(0),
                static_cast<std::byte*>(on_host.mutable_data_ptr()));
  if (!target.tensor.is_cpu()) target.tensor.copy_(on_host);
}

// The tensors are exactly those that some rank reads. One that is missing on another rank is its error, too.
void check_names(const TensorSet& set, const std::set<std::string>& expected) {
  for (const auto& name : expected) set.outline(name);
  for (const auto& name : set.names()) {
    if (expected.count(name)) continue;
    throw Error(
        fmt::format("{}: tensor '{}' belongs to no parameter of this model; continue with the config of the "
                    "checkpoint",
                    set.file_of(name), name),
        Error::Kind::kData);
  }
}

std::set<std::string> names_of(const nn::TaggedParameter& parameter, const char* suffix) {
  std::set<std::string> names;
  for (const auto& name : logical_names(parameter)) names.insert(name + suffix);
  return names;
}

std::string with_prefix_of(const nn::TaggedParameter& parameter, const std::string& name) {
  const auto dot = parameter.name.rfind('.');
  return (dot == std::string::npos ? "" : parameter.name.substr(0, dot + 1)) + name;
}

}  // namespace

std::vector<NamedSlice> logical_slices(const nn::TaggedParameter& parameter, const at::Tensor& values) {
  return logical_slices(parameter, values, {0, optim::count_rows(parameter)});
}

std::vector<NamedSlice> logical_slices(const nn::TaggedParameter& parameter, const at::Tensor& values,
                                       optim::RowRange rows) {
  const auto& tag = parameter.tag;
  const int64_t all = optim::count_rows(parameter);
  const auto matrix =
      values.view({rows.size(), all > 0 ? parameter.tensor.numel() / all : 1});  // one row a line
  auto shape = parameter.tensor.sizes().vec();
  if (tag.expert_dim) shape.erase(shape.begin());  // count_rows has checked that it is the first
  std::vector<NamedSlice> slices;
  // Rows [begin, begin + size) of the parameter under a name of their own, as far as they are here.
  const auto add = [&](std::string name, int64_t begin, int64_t size) {
    const int64_t first = std::max(begin, rows.begin), last = std::min(begin + size, rows.end);
    if (first >= last && size > 0) return;
    auto part = shape;
    if (!part.empty()) part[0] = last - first;
    slices.push_back({.name = std::move(name),
                      .tensor = matrix.narrow(0, first - rows.begin, last - first).view(part),
                      .first_row = first - begin,
                      .num_rows = size});
  };
  if (tag.parts.empty()) {
    add(parameter.name, 0, all);
    return slices;
  }
  const int64_t experts = tag.expert_dim ? parameter.tensor.size(0) : 1;
  for (int64_t e = 0; e < experts; ++e) {
    for (const auto& part : tag.parts) {
      CONCLAVE_CHECK(part.dim == 0, fmt::format("'{}': parts in dimension {}", parameter.name, part.dim));
      add(with_prefix_of(parameter, with_expert(part.logical_name, tag.first_expert + e * tag.expert_stride)),
          e * (all / experts) + part.begin, part.size);
    }
  }
  return slices;
}

std::vector<std::string> logical_names(const nn::TaggedParameter& parameter) {
  const auto& tag = parameter.tag;
  if (tag.parts.empty()) return {parameter.name};
  const int64_t here = tag.expert_dim ? parameter.tensor.size(*tag.expert_dim) : 1;
  std::vector<std::string> names;
  for (int64_t e = 0; e < tag.num_experts.value_or(here); ++e) {
    for (const auto& part : tag.parts)
      names.push_back(with_prefix_of(parameter, with_expert(part.logical_name, e)));
  }
  return names;
}

std::vector<NamedSlice> named_buffers(const torch::nn::Module& root) {
  std::vector<NamedSlice> buffers;
  for (const auto& item : root.named_buffers()) {
    const auto& value = item.value();
    buffers.push_back(
        {.name = item.key(), .tensor = value, .num_rows = value.dim() == 0 ? 1 : value.size(0)});
  }
  return buffers;
}

CheckpointShare checkpoint_share(const optim::ParameterShards& shards) {
  const auto& ranks = shards.ranks();
  CheckpointShare share{.experts = ranks.expert_data->rank() == 0,
                        .data = ranks.world->rank() == 0,
                        .model = {ranks.expert->rank() + 1, ranks.expert->size()}};
  share.optimizer = share.model;
  for (const auto& bucket : shards.buckets()) share.moments_by_owner |= shards.is_shared_out(bucket);
  if (share.moments_by_owner) share.optimizer = {ranks.world->rank() + 1, ranks.world->size()};
  return share;
}

namespace {

std::string file_name(const char* name, CheckpointShare::File file) {
  return file.of == 1 ? fmt::format("{}.safetensors", name)
                      : fmt::format("{}-{:05}-of-{:05}.safetensors", name, file.number, file.of);
}

void add_moments(FileContents& file, const nn::TaggedParameter& parameter, optim::RowRange rows,
                 const optim::AdamW::State& state) {
  if (!state.exp_avg.defined()) return;  // frozen
  for (const auto& [values, suffix] :
       {std::pair(state.exp_avg, ".exp_avg"), std::pair(state.exp_avg_sq, ".exp_avg_sq")}) {
    for (const auto& s : logical_slices(parameter, values, rows)) {
      file.tensors.push_back(view_of(s.name + suffix, s.tensor));
      if (!s.is_whole()) file.metadata.insert(rows_entry(s.name + suffix, s.first_row, s.num_rows));
    }
  }
}

}  // namespace

std::vector<FileContents> checkpoint_files(const optim::ParameterShards& shards,
                                           const std::vector<NamedSlice>& buffers,
                                           const optim::AdamW& optimizer) {
  const auto share = checkpoint_share(shards);
  FileContents model{.name = file_name("model", share.model)},
      moments{.name = file_name("optimizer", share.optimizer)};
  for (size_t i = 0; i < shards.parameters().size(); ++i) {
    const auto& parameter = shards.parameters()[i];
    const bool mine = parameter.tag.expert_dim ? share.experts : share.data;
    if (mine) {
      for (const auto& s : logical_slices(parameter, parameter.tensor))
        model.tensors.push_back(view_of(s.name, s.tensor));
    }
    const bool owner = share.moments_by_owner && shards.is_shared_out(i);
    if (owner || mine) add_moments(moments, parameter, shards.owned_rows()[i], optimizer.state()[i]);
  }
  if (share.data) {
    for (const auto& buffer : buffers) model.tensors.push_back(view_of(buffer.name, buffer.tensor));
  }
  std::vector<FileContents> files;
  if (share.experts || share.data) files.push_back(std::move(model));
  if (!files.empty() || share.moments_by_owner) files.push_back(std::move(moments));
  return files;
}

void restore_weights(const Checkpoint& checkpoint, const std::vector<nn::TaggedParameter>& parameters,
                     const std::vector<NamedSlice>& buffers) {
  const c10::NoGradGuard no_grad;
  const TensorSet model(checkpoint, "model");
  std::set<std::string> expected;
  for (const auto& parameter : parameters) expected.merge(names_of(parameter, ""));
  for (const auto& buffer : buffers) expected.insert(buffer.name);
  check_names(model, expected);
  for (const auto& parameter : parameters) {
    for (const auto& s : logical_slices(parameter, parameter.tensor)) copy_into(s, s.name, model);
  }
  for (const auto& buffer : buffers) copy_into(buffer, buffer.name, model);
}

void restore_moments(const Checkpoint& checkpoint, const optim::ParameterShards& shards,
                     const optim::AdamW& optimizer) {
  const c10::NoGradGuard no_grad;
  const TensorSet moments(checkpoint, "optimizer");
  std::set<std::string> expected;
  const auto visit = [&](auto body) {
    for (size_t i = 0; i < shards.parameters().size(); ++i) {
      const auto& state = optimizer.state()[i];
      if (!state.exp_avg.defined()) continue;  // frozen
      body(shards.parameters()[i], shards.owned_rows()[i], state.exp_avg, ".exp_avg");
      body(shards.parameters()[i], shards.owned_rows()[i], state.exp_avg_sq, ".exp_avg_sq");
    }
  };
  visit([&](const auto& parameter, optim::RowRange, const at::Tensor&, const char* suffix) {
    expected.merge(names_of(parameter, suffix));
  });
  check_names(moments, expected);
  visit([&](const auto& parameter, optim::RowRange rows, const at::Tensor& values, const char* suffix) {
    for (const auto& s : logical_slices(parameter, values, rows)) copy_into(s, s.name + suffix, moments);
  });
}

}  // namespace conclave::train
