// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>
#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "conclave/core/error.h"
#include "conclave/train/json_reader.h"
#include "conclave/train/safetensors.h"
#include "conclave/train/safetensors_dtypes.h"

namespace conclave::train {

namespace {

// Throws unless our own reader would take the tensor back.
void check_writable_tensor(const std::string& file, const TensorView& tensor) {
  const auto refuse = [&](const std::string& problem) {
    throw Error(fmt::format("cannot write tensor '{}' into '{}': {}", tensor.name, file, problem));
  };
  if (tensor.name == "__metadata__") refuse("the name is reserved; rename it");
  if (tensor.name.size() > kSafetensorsMaxNameBytes) refuse("its name is too long");
  if (tensor.shape.size() > kSafetensorsMaxRank) {
    refuse(fmt::format("{} dimensions, the limit is {}", tensor.shape.size(), kSafetensorsMaxRank));
  }
  std::string problem;
  const auto size = tensor_bytes(tensor.dtype, tensor.shape, problem);
  if (!size) refuse(problem);
  if (*size != tensor.bytes.size()) {
    refuse(fmt::format("shape [{}] of {} takes {} bytes, {} were given", fmt::join(tensor.shape, ", "),
                       tensor.dtype, *size, tensor.bytes.size()));
  }
}

std::vector<const TensorView*> order_for_writing(const std::string& file,
                                                 const std::vector<TensorView>& tensors) {
  std::vector<const TensorView*> order;
  for (const auto& tensor : tensors) {
    check_writable_tensor(file, tensor);
    order.push_back(&tensor);
  }
  if (order.size() > kSafetensorsMaxTensors) {
    throw Error(fmt::format("cannot write {} tensors into '{}', the limit is {}", order.size(), file,
                            kSafetensorsMaxTensors));
  }
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::make_tuple(-*dtype_bits(a->dtype), std::string_view(a->name)) <
           std::make_tuple(-*dtype_bits(b->dtype), std::string_view(b->name));
  });
  std::set<std::string_view> names;
  for (const auto* tensor : order) {
    if (!names.insert(tensor->name).second) {
      throw Error(fmt::format("cannot write '{}': the tensor '{}' was given twice", file, tensor->name));
    }
  }
  return order;
}

// Length prefix, JSON and padding.
std::string render_safetensors_header(const std::string& file, const std::vector<const TensorView*>& order,
                                      SafetensorsMetadata metadata) {
  metadata.emplace("format", "pt");
  std::string text = R"({"__metadata__":{)";
  for (const auto& [key, value] : metadata) {
    text += fmt::format("{}:{},", json_quote(key), json_quote(value));
  }
  text.back() = '}';
  uint64_t offset = 0;
  for (const auto* tensor : order) {
    const uint64_t end = offset + tensor->bytes.size();
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        json_quote(tensor->name), tensor->dtype, fmt::join(tensor->shape, ","), offset, end);
    offset = end;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kSafetensorsMaxHeaderBytes) {
    throw Error(fmt::format("cannot write '{}': its header would take {} bytes, the limit is {}", file,
                            text.size(), kSafetensorsMaxHeaderBytes));
  }
  std::string prefix(8, '\0');
  const uint64_t length = text.size();
  std::memcpy(prefix.data(), &length, 8);
  return prefix + text;
}

}  // namespace

uint64_t write_safetensors(FileWriter& out, const std::string& file, const std::vector<TensorView>& tensors,
                           const SafetensorsMetadata& metadata) {
  const auto order = order_for_writing(file, tensors);
  const std::string header = render_safetensors_header(file, order, metadata);
  out.write(bytes_of(header));
  uint64_t size = header.size();
  for (const auto* tensor : order) {
    out.write(tensor->bytes);
    size += tensor->bytes.size();
  }
  return size;
}

uint64_t safetensors_size(const std::string& file, const std::vector<TensorView>& tensors,
                          const SafetensorsMetadata& metadata) {
  const auto order = order_for_writing(file, tensors);
  uint64_t size = render_safetensors_header(file, order, metadata).size();
  for (const auto* tensor : order) size += tensor->bytes.size();
  return size;
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const SafetensorsMetadata& metadata) {
  const std::filesystem::path temporary =
      path.string() + fmt::format(".{}.tmp", static_cast<long>(::getpid()));
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);  // of a killed process that had our number
  try {
    const auto out = create_disk_file(temporary);
    write_safetensors(*out, path.string(), tensors, metadata);
    out->finish();
    std::filesystem::rename(temporary, path);
  } catch (const std::filesystem::filesystem_error& error) {
    std::filesystem::remove(temporary, ignored);
    throw Error(fmt::format("cannot rename into place '{}': {}", path.string(), error.code().message()));
  } catch (...) {
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  const auto folder = path.parent_path();
  sync_path(folder.empty() ? std::filesystem::path(".") : folder);
}

}  // namespace conclave::train
