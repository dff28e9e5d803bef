// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/model_state.h"

#include <cstring>
#include <set>

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"

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

void copy_into(const at::Tensor& target, const std::string& name, const SafetensorsFile& file) {
  const TensorView& source = file.at(name);
  if (source.shape != target.sizes().vec() || source.dtype != dtype_name(target.scalar_type())) {
    throw Error(
        fmt::format("{}: tensor '{}' is {} [{}], the model needs {} [{}]; continue with the config of the "
                    "checkpoint",
                    file.path().string(), name, source.dtype, fmt::join(source.shape, ", "),
                    dtype_name(target.scalar_type()), fmt::join(target.sizes().vec(), ", ")),
        Error::Kind::kData);
  }
  std::memcpy(target.mutable_data_ptr(), source.bytes.data(), source.bytes.size());
}

void refuse_extra(const SafetensorsFile& file, const std::set<std::string>& used) {
  for (const auto& name : file.names()) {
    if (!used.count(name)) {
      throw Error(
          fmt::format(
              "{}: tensor '{}' belongs to no parameter of this model; continue with the config of the "
              "checkpoint",
              file.path().string(), name),
          Error::Kind::kData);
    }
  }
}

}  // namespace

std::vector<NamedSlice> logical_slices(const nn::TaggedParameter& parameter, const at::Tensor& values) {
  if (parameter.tag.parts.empty()) return {{parameter.name, values}};
  const auto dot = parameter.name.rfind('.');
  const std::string prefix = dot == std::string::npos ? "" : parameter.name.substr(0, dot + 1);
  std::vector<NamedSlice> slices;
  const bool stacked = parameter.tag.expert_dim.has_value();
  const int64_t experts = stacked ? values.size(*parameter.tag.expert_dim) : 1;
  for (int64_t e = 0; e < experts; ++e) {
    const auto whole = stacked ? values.select(*parameter.tag.expert_dim, e) : values;
    for (const auto& part : parameter.tag.parts) {
      slices.push_back({prefix + with_expert(part.logical_name, parameter.tag.first_expert + e),
                        whole.narrow(part.dim, part.begin, part.size)});
    }
  }
  return slices;
}

std::vector<NamedSlice> named_buffers(const torch::nn::Module& root) {
  std::vector<NamedSlice> buffers;
  for (const auto& item : root.named_buffers()) buffers.push_back({item.key(), item.value()});
  return buffers;
}

std::vector<FileContents> checkpoint_files(const std::vector<nn::TaggedParameter>& parameters,
                                           const std::vector<NamedSlice>& buffers,
                                           const optim::AdamW& optimizer) {
  FileContents model{.name = "model.safetensors"}, moments{.name = "optimizer.safetensors"};
  for (size_t i = 0; i < parameters.size(); ++i) {
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
  for (const auto& buffer : buffers) model.tensors.push_back(view_of(buffer.name, buffer.tensor));
  return {model, moments};
}

void load_checkpoint(const Checkpoint& checkpoint, const std::vector<nn::TaggedParameter>& parameters,
                     const std::vector<NamedSlice>& buffers, const optim::AdamW* optimizer) {
  const c10::NoGradGuard no_grad;
  const auto model = checkpoint.file("model.safetensors");
  std::set<std::string> used;
  for (const auto& parameter : parameters) {
    for (const auto& s : logical_slices(parameter, parameter.tensor)) {
      copy_into(s.tensor, s.name, model);
      used.insert(s.name);
    }
  }
  for (const auto& buffer : buffers) {
    copy_into(buffer.tensor, buffer.name, model);
    used.insert(buffer.name);
  }
  refuse_extra(model, used);
  if (!optimizer) return;
  const auto moments = checkpoint.file("optimizer.safetensors");
  used.clear();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& state = optimizer->state()[i];
    for (const auto& [values, suffix] :
         {std::pair(state.exp_avg, ".exp_avg"), std::pair(state.exp_avg_sq, ".exp_avg_sq")}) {
      if (!values.defined()) continue;  // frozen
      for (const auto& s : logical_slices(parameters[i], values)) {
        copy_into(s.tensor, s.name + suffix, moments);
        used.insert(s.name + suffix);
      }
    }
  }
  refuse_extra(moments, used);
}

}  // namespace conclave::train
