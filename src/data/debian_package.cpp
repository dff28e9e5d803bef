// SPDX-License-Identifier: Apache-2.0
#include "debian_package.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "command.h"
#include "conclave/core/error.h"
#include "conclave/data/digest.h"
#include "conclave/data/extract.h"

namespace conclave::data {

namespace fs = std::filesystem;

namespace {

std::optional<fs::path> find_deb(const fs::path& folder, const std::string& package) {
  if (!fs::is_directory(folder)) return std::nullopt;
  std::vector<fs::path> found;
  for (const auto& item : fs::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    if (name.starts_with(package + "_") && name.ends_with(".deb")) found.push_back(item.path());
  }
  if (found.size() > 1) {
    throw Error(fmt::format("'{}' holds {} versions of the package {}; keep one", folder.string(),
                            found.size(), package));
  }
  if (found.empty()) return std::nullopt;
  return found.front();
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

[[noreturn]] void fail_to_download(const std::vector<std::string>& names, const CommandResult& result,
                                   const fs::path& offline) {
  const bool no_program = result.status < 0;
  const bool no_lists = result.output.find("Unable to locate package") != std::string::npos ||
                        result.output.find("Can't find a source to download") != std::string::npos ||
                        result.output.find("No packages found") != std::string::npos ||
                        result.output.find("no installation candidate") != std::string::npos;
  const std::string remedy =
      no_program ? "this corpus is made from packages of Debian 12 and needs its package tools"
      : no_lists ? "the package lists are missing or old: run `apt-get update` as root, then start again"
                 : "check the network and the package archive in /etc/apt";
  const std::string told = trim_lines(result.output);
  throw Error(
      fmt::format(
          "cannot download the packages {} (apt-get: {}); {}. Without a network: put the .deb files into "
          "'{}', or train on files of your own (data.train: [{{path: FILE}}])",
          join(names), told.substr(told.size() - std::min<size_t>(told.size(), 300)), remedy,
          offline.string()),
      Error::Kind::kData);
}

void download(const std::vector<std::string>& names, const fs::path& folder, const fs::path& offline,
              const Log& log) {
  if (names.empty()) return;
  log.info(fmt::format("downloading the packages {}", join(names)));
  std::vector<std::string> arguments = {"apt-get", "-q",
                                        "-o",      "Acquire::Retries=2",
                                        "-o",      "Acquire::http::Timeout=30",
                                        "-o",      "APT::Sandbox::User=root",
                                        "download"};
  arguments.insert(arguments.end(), names.begin(), names.end());
  const CommandResult result = run_command(arguments, folder);
  if (result.status != 0) fail_to_download(names, result, offline);
}

std::string run_dpkg(const std::vector<std::string>& arguments, const fs::path& folder, const fs::path& deb) {
  const CommandResult result = run_command(arguments, folder);
  if (result.status != 0) {
    throw Error(fmt::format("cannot read the package '{}' (dpkg-deb: {}); download it again", deb.string(),
                            trim_lines(result.output)),
                Error::Kind::kData);
  }
  return trim_lines(result.output);
}

}  // namespace

std::vector<DebianPackage> unpack_packages(const std::vector<std::string>& names, const fs::path& folder,
                                           const fs::path& offline, const Log& log) {
  std::vector<std::string> missing;
  for (const auto& name : names) {
    if (!find_deb(offline, name)) missing.push_back(name);
  }
  download(missing, folder, offline, log);
  std::vector<DebianPackage> packages;
  for (const auto& name : names) {
    auto deb = find_deb(offline, name);
    if (!deb) deb = find_deb(folder, name);
    if (!deb)
      throw Error(fmt::format("apt-get said it downloaded {}, but there is no such file in '{}'", name,
                              folder.string()));
    const fs::path absolute = fs::absolute(*deb);
    run_dpkg({"dpkg-deb", "-x", absolute.string(), "root"}, folder, absolute);
    packages.push_back(
        {.name = name,
         .version = run_dpkg({"dpkg-deb", "-f", absolute.string(), "Version"}, folder, absolute),
         .sha256 = sha256_of_file(absolute)});
  }
  return packages;
}

}  // namespace conclave::data
