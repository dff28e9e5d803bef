// SPDX-License-Identifier: Apache-2.0
#include "conclave/train/init_from.h"

#include <cstring>
#include <map>
#include <optional>

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/tensor_set.h"

namespace conclave::train {

namespace {

constexpr size_t kNamedMismatches = 12;

std::optional<c10::ScalarType> floating_type(const std::string& dtype) {
  if (dtype == "F64") return c10::ScalarType::Double;
  if (dtype == "F32") return c10::ScalarType::Float;
  if (dtype == "F16") return c10::ScalarType::Half;
  if (dtype == "BF16") return c10::ScalarType::BFloat16;
  return std::nullopt;
}

TensorSet open_weights(const std::filesystem::path& from) {
  if (!std::filesystem::exists(from)) {
    throw Error(fmt::format("checkpoint.init_from: '{}' does not exist; name a checkpoint folder or a "
                            "safetensors file",
                            from.string()),
                Error::Kind::kData);
  }
  if (!std::filesystem::is_directory(from)) return TensorSet(from);
  if (std::filesystem::exists(from / kManifestFile)) return TensorSet(Checkpoint(from), "model");
  std::string remedy = "name a folder like checkpoints/step-00001000, or a safetensors file";
  const auto folder = std::filesystem::is_directory(from / "checkpoints") ? from / "checkpoints" : from;
  const CheckpointStore store(folder);
  if (const auto step = store.latest())
    remedy = fmt::format("its newest checkpoint is '{}'", store.step_folder(*step).string());
  throw Error(fmt::format("checkpoint.init_from: the folder '{}' is no checkpoint (it holds no {}); {}",
                          from.string(), kManifestFile, remedy),
              Error::Kind::kData);
}

// The tensors of a set laid against the slices of a model.
class WeightMatch {
 public:
  explicit WeightMatch(const TensorSet& set) : set_(set) {
    for (const auto& name : set.names()) unused_[name] = set.at(name);
  }

  // An expert of another rank: its shape is that rank's business.
  void leave(const std::string& name) { unused_.erase(name); }

  void want(const NamedSlice& slice, bool required) {
    const auto found = unused_.find(slice.name);
    if (found == unused_.end()) {
      if (required)
        problems_.push_back(fmt::format("'{}' [{}] is missing", slice.name, shape_of(slice.tensor)));
      else
        absent_.push_back(slice.name);
      return;
    }
    const StoredTensor view = std::move(found->second);
    unused_.erase(found);
    if (view.shape != slice.tensor.sizes().vec()) {
      problems_.push_back(fmt::format("'{}' is [{}], the model needs [{}]", slice.name,
                                      fmt::join(view.shape, ", "), shape_of(slice.tensor)));
    } else if (!floating_type(view.dtype)) {
      problems_.push_back(
          fmt::format("'{}' is of type {}, which is no floating type", slice.name, view.dtype));
    } else {
      pairs_.emplace_back(slice.tensor, view);
    }
  }

  void refuse_mismatches() {
    for (const auto& [name, view] : unused_)
      problems_.push_back(
          fmt::format("'{}' [{}] belongs to no parameter", name, fmt::join(view.shape, ", ")));
    if (problems_.empty()) return;
    std::string text;
    for (size_t i = 0; i < std::min(problems_.size(), kNamedMismatches); ++i) text += "\n  " + problems_[i];
    if (problems_.size() > kNamedMismatches)
      text += fmt::format("\n  and {} more", problems_.size() - kNamedMismatches);
    throw Error(fmt::format("checkpoint.init_from: '{}' does not fit this model:{}", set_.place(), text),
                Error::Kind::kData);
  }

  // The views may lie at any address, so each goes through a tensor of its own.
  void copy() const {
    for (const auto& [target, view] : pairs_) {
      const auto values = at::empty(view.shape, *floating_type(view.dtype));
      std::memcpy(values.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
      target.copy_(values);
    }
  }

  const std::vector<std::string>& absent() const { return absent_; }
  size_t size() const { return pairs_.size(); }

 private:
  static std::string shape_of(const at::Tensor& tensor) {
    return fmt::format("{}", fmt::join(tensor.sizes().vec(), ", "));
  }

  const TensorSet& set_;
  std::map<std::string, StoredTensor> unused_;
  std::vector<std::pair<at::Tensor, StoredTensor>> pairs_;
  std::vector<std::string> problems_, absent_;
};

}  // namespace

void load_weights(const std::filesystem::path& from, const std::vector<nn::TaggedParameter>& parameters,
                  const std::vector<NamedSlice>& buffers, const Log& log) {
  const c10::NoGradGuard no_grad;
  const auto weights = open_weights(from);
  WeightMatch match(weights);
  for (const auto& parameter : parameters) {
    for (const auto& slice : logical_slices(parameter, parameter.tensor))
      match.want(slice, /*required=*/true);
    for (const auto& name : logical_names(parameter)) match.leave(name);
  }
  for (const auto& buffer : buffers) match.want(buffer, /*required=*/false);
  match.refuse_mismatches();
  match.copy();
  log.info(fmt::format("{} tensors taken from '{}'", match.size(), weights.place()));
  for (const auto& name : match.absent())
    log.info(fmt::format("'{}' holds no '{}'; it starts as in a new model", weights.place(), name));
}

}  // namespace conclave::train
