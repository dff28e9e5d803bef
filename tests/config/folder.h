// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "config/sample.h"

namespace config_sample {

// A folder of files for one test, removed at its end.
class Folder {
 public:
  Folder() {
    std::string pattern = testing::TempDir() + "conclave_config_XXXXXX";
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

// A file with `yaml`, read with overrides, as YAML again; or the refusal, the folder's name left out.
inline std::string loaded(const std::string& yaml, const std::vector<std::string>& overrides = {},
                          const Node* defaults = nullptr) {
  const Folder folder;
  const auto file = folder.write("a.yaml", yaml);
  try {
    return emit_yaml(load_config(file, overrides, defaults));
  } catch (const conclave::ConfigError& error) {
    std::string text = error.what();
    const std::string prefix = file.parent_path().string() + "/";
    for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix))
      text.erase(at, prefix.size());
    return text;
  }
}

}  // namespace config_sample
