// SPDX-License-Identifier: Apache-2.0
#include "conclave/nn/module.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

namespace conclave::nn {

at::Tensor Module::register_tagged(const std::string& name, at::Tensor value, ParamTag tag) {
  tags_.emplace(name, std::move(tag));
  return register_parameter(name, std::move(value));
}

std::vector<TaggedParameter> tagged_parameters(const torch::nn::Module& root) {
  std::vector<TaggedParameter> found;
  const auto visit = [&](const torch::nn::Module& module, const std::string& prefix) {
    const auto* tagged = dynamic_cast<const Module*>(&module);
    for (const auto& item : module.named_parameters(/*recurse=*/false)) {
      ParamTag tag{.role = item.value().dim() > 1 ? ParamRole::kMatrix : ParamRole::kBias};
      if (tagged) {
        const auto it = tagged->tags().find(item.key());
        if (it != tagged->tags().end()) tag = it->second;
      }
      found.push_back({prefix + item.key(), item.value(), std::move(tag)});
    }
  };
  visit(root, "");
  for (const auto& item : root.named_modules("", /*include_self=*/false))
    visit(*item.value(), item.key() + ".");
  return found;
}

namespace {

uint64_t name_hash(const std::string& name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// `draw(i)` for every element i, in double, rounded once to the tensor's dtype. Experts are numbered from
// their global id, so that a rank that holds some of them draws what the whole tensor has there.
template <class Draw>
void fill_elements(const TaggedParameter& parameter, Draw draw) {
  const auto& tensor = parameter.tensor;
  const auto& tag = parameter.tag;
  const bool by_expert = tag.expert_dim == 0 && tensor.numel() > 0;
  const int64_t size = by_expert ? tensor.numel() / tensor.size(0) : tensor.numel();  // of an expert
  const auto place = [&](int64_t i) {
    const int64_t expert = by_expert ? tag.first_expert + i / size * tag.expert_stride : 0;
    return static_cast<uint64_t>(by_expert ? expert * size + i % size : i);
  };
  auto values = at::empty(tensor.sizes(), tensor.options().dtype(at::kDouble).device(at::kCPU));
  double* out = values.data_ptr<double>();
  at::parallel_for(0, values.numel(), /*grain_size=*/4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = draw(place(i));
  });
  tensor.copy_(values);
}

}  // namespace

void initialise(torch::nn::Module& root, double range, uint64_t seed) {
  const c10::NoGradGuard no_grad;
  for (const auto& parameter : tagged_parameters(root)) {
    const RandomKey key{.seed = mix64(seed) ^ name_hash(parameter.name)};
    if (const auto& bound = parameter.tag.init_uniform) {
      fill_elements(parameter, [&](uint64_t i) {
        return *bound * (2.0 * key.uniform(RandomStream::kInit, 0, i) - 1.0);
      });
    } else if (parameter.tag.role == ParamRole::kNorm) {
      parameter.tensor.fill_(1);
    } else if (parameter.tag.role == ParamRole::kBias) {
      parameter.tensor.zero_();
    } else {
      fill_elements(parameter, [&](uint64_t i) { return range * key.normal(RandomStream::kInit, 0, i); });
    }
  }
}

}  // namespace conclave::nn
