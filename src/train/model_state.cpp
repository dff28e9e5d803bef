// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/model_state.h"

#include <cstring>
#include <set>

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
  return {.name = name,
          .dtype = dtype_name(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

void copy_into(const at::Tensor& target, const std::string& name, const TensorSet& set) {
  const TensorView& source = set.at(name);
  if (source.shape != target.sizes().vec() || source.dtype != dtype_name(target.scalar_type())) {
    throw Error(
        fmt::format("{}: tensor '{}' is {} [{}], the model needs {} [{}]; continue with the config of the "
                    "checkpoint",
                    set.file_of(name), name, source.dtype, fmt::join(source.shape, ", "),
                    dtype_name(target.scalar_type()), fmt::join(target.sizes().vec(), ", ")),
        Error::Kind::kData);
  }
  std::memcpy(target.mutable_data_ptr(), source.bytes.data(), source.bytes.size());
}

// The tensors are exactly those that some rank reads. One that is missing on another rank is its error, too.
void check_names(const TensorSet& set, const std::set<std::string>& expected) {
  for (const auto& name : expected) set.at(name);
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
  const auto& tag = parameter.tag;
  if (tag.parts.empty()) return {{parameter.name, values}};
  std::vector<NamedSlice> slices;
  const int64_t experts = tag.expert_dim ? values.size(*tag.expert_dim) : 1;
  for (int64_t e = 0; e < experts; ++e) {
    const auto whole = tag.expert_dim ? values.select(*tag.expert_dim, e) : values;
    for (const auto& part : tag.parts) {
      slices.push_back({with_prefix_of(parameter, with_expert(part.logical_name, tag.first_expert + e)),
                        whole.narrow(part.dim, part.begin, part.size)});
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
  for (const auto& item : root.named_buffers()) buffers.push_back({item.key(), item.value()});
  return buffers;
}

CheckpointShare checkpoint_share(const comm::RankGroups& ranks) {
  return {.experts = ranks.expert_data->rank() == 0,
          .data = ranks.world->rank() == 0,
          .file = ranks.expert->rank() + 1,
          .num_files = ranks.expert->size()};
}

std::vector<FileContents> checkpoint_files(const std::vector<nn::TaggedParameter>& parameters,
                                           const std::vector<NamedSlice>& buffers,
                                           const optim::AdamW& optimizer, const CheckpointShare& share) {
  if (!share.experts && !share.data) return {};
  const auto file_name = [&](const char* name) {
    return share.num_files == 1
               ? fmt::format("{}.safetensors", name)
               : fmt::format("{}-{:05}-of-{:05}.safetensors", name, share.file, share.num_files);
  };
  FileContents model{.name = file_name("model")}, moments{.name = file_name("optimizer")};
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!(parameters[i].tag.expert_dim ? share.experts : share.data)) continue;
    const auto& state = optimizer.state()[i];
    for (const auto& s : logical_slices(parameters[i], parameters[i].tensor)) {
      model.tensors.push_back(view_of(s.name, s.tensor));
    }
    if (!state.exp_avg.defined()) continue;  // frozen
    for (const auto& s : logical_slices(parameters[i], state.exp_avg)) {
      moments.tensors.push_back(view_of(s.name + ".exp_avg", s.tensor));
    }
    for (const auto& s : logical_slices(parameters[i], state.exp_avg_sq)) {
      moments.tensors.push_back(view_of(s.name + ".exp_avg_sq", s.tensor));
    }
  }
  if (share.data) {
    for (const auto& buffer : buffers) model.tensors.push_back(view_of(buffer.name, buffer.tensor));
  }
  return {model, moments};
}

void load_checkpoint(const Checkpoint& checkpoint, const std::vector<nn::TaggedParameter>& parameters,
                     const std::vector<NamedSlice>& buffers, const optim::AdamW* optimizer) {
  const c10::NoGradGuard no_grad;
  const TensorSet model(checkpoint, "model");
  std::set<std::string> expected;
  for (const auto& parameter : parameters) expected.merge(names_of(parameter, ""));
  for (const auto& buffer : buffers) expected.insert(buffer.name);
  check_names(model, expected);
  for (const auto& parameter : parameters) {
    for (const auto& s : logical_slices(parameter, parameter.tensor)) copy_into(s.tensor, s.name, model);
  }
  for (const auto& buffer : buffers) copy_into(buffer.tensor, buffer.name, model);
  if (!optimizer) return;

  const TensorSet moments(checkpoint, "optimizer");
  expected.clear();
  const auto visit = [&](auto body) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& state = optimizer->state()[i];
      if (!state.exp_avg.defined()) continue;  // frozen
      body(parameters[i], state.exp_avg, ".exp_avg");
      body(parameters[i], state.exp_avg_sq, ".exp_avg_sq");
    }
  };
  visit([&](const nn::TaggedParameter& parameter, const at::Tensor&, const char* suffix) {
    expected.merge(names_of(parameter, suffix));
  });
  check_names(moments, expected);
  visit([&](const nn::TaggedParameter& parameter, const at::Tensor& values, const char* suffix) {
    for (const auto& s : logical_slices(parameter, values)) copy_into(s.tensor, s.name + suffix, moments);
  });
}

}  // namespace conclave::train
