// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "conclave/cli/doctor.h"
#include "conclave/cli/run.h"
#include "conclave/train/json_reader.h"
#include "machine.h"

namespace conclave::cli {

namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

const char* health_name(Health health) {
  switch (health) {
    case Health::kOk:
      return "ok";
    case Health::kNote:
      return "note";
    case Health::kWarning:
      return "warning";
    case Health::kFail:
      break;
  }
  return "fail";
}

// The text behind "KEY :" of the first line that begins so.
std::vector<int> version_numbers(const std::string& version) {
  std::vector<int> numbers;
  for (size_t at = 0; at < version.size();) {
    int number = 0;
    const auto [end, error] = std::from_chars(version.data() + at, version.data() + version.size(), number);
    if (error != std::errc()) break;
    numbers.push_back(number);
    at = static_cast<size_t>(end - version.data());
    if (at >= version.size() || version[at] != '.') break;
    ++at;
  }
  return numbers;
}

// The first word of digits and points that has both.
std::string version_in(const std::string& text) {
  std::string word;
  for (const char c : text + " ") {
    if ((c >= '0' && c <= '9') || (c == '.' && !word.empty())) {
      word += c;
      continue;
    }
    if (word.find('.') != std::string::npos && word.back() != '.') return word;
    word.clear();
  }
  return "";
}

std::string gib(double bytes) {
  return fmt::format("{:.1f} GiB", bytes / kGib);
}

}  // namespace

bool version_at_least(const std::string& version, const std::string& minimum) {
  auto have = version_numbers(version), need = version_numbers(minimum);
  have.resize(std::max(have.size(), need.size()), 0);
  need.resize(have.size(), 0);
  return have >= need;
}

Finding judge_tool(const std::string& name, const std::string& version_text, const std::string& minimum,
                   const std::string& package) {
  const std::string remedy =
      fmt::format("only building needs it: apt-get install {} (tools/setup does that)", package);
  if (version_text.empty()) return {name, Health::kWarning, "not found on PATH", remedy};
  const std::string version = version_in(version_text);
  if (version.empty()) return {name, Health::kWarning, "does not tell its version", remedy};
  if (!version_at_least(version, minimum)) {
    return {name, Health::kWarning, fmt::format("{}, older than {}", version, minimum), remedy};
  }
  return {name, Health::kOk, version};
}

Finding judge_cpu(const std::string& cpuinfo) {
  std::string flags = value_of(cpuinfo, "flags");
  if (flags.empty()) flags = value_of(cpuinfo, "Features");  // Arm
  std::istringstream words(flags);
  const std::set<std::string> set{std::istream_iterator<std::string>(words), {}};
  const auto has = [&](const char* flag) { return set.count(flag) != 0; };
  const std::string model = cpu_model(cpuinfo);
  const auto found = [&](Health health, const std::string& features, const std::string& remedy = "") {
    return Finding{"CPU", health, fmt::format("{}; {}", model, features), remedy};
  };
  if (has("amx_bf16"))
    return found(Health::kOk, "AVX-512 and AMX: bf16 products run in matrix units, use bf16");
  if (has("avx512_bf16")) return found(Health::kOk, "AVX-512 with bf16 products: bf16 is faster than fp32");
  if (has("bf16")) return found(Health::kOk, "bf16 products");
  if (has("avx512f")) {
    return found(Health::kNote, "AVX-512 without bf16 products: bf16 halves memory and is not faster",
                 "keep training.precision: fp32 for speed");
  }
  if (has("avx2")) {
    return found(Health::kNote, "AVX2: bf16 is converted to fp32 and back, slower than fp32",
                 "keep training.precision: fp32");
  }
  return found(Health::kWarning, "no AVX2: every product is slow", "train on a machine with AVX2 or newer");
}

Finding judge_threads(const ThreadFacts& facts) {
  const double usable = std::min(facts.quota.value_or(facts.allowed), static_cast<double>(facts.allowed));
  std::string value = fmt::format("{} of {} cores allowed", facts.allowed, facts.online);
  if (facts.quota) value += fmt::format(", control group {:.1f} cores", *facts.quota);
  value += facts.omp_num_threads ? fmt::format(", OMP_NUM_THREADS={}", *facts.omp_num_threads)
                                 : std::string(", OMP_NUM_THREADS not set");
  const int suggestion = std::max(static_cast<int>(usable), 1);
  int threads = facts.allowed;
  if (const auto& text = facts.omp_num_threads) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), threads);
    if (error != std::errc() || end != text->data() + text->size() || threads < 1) {
      return {"threads", Health::kWarning, value,
              fmt::format("OMP_NUM_THREADS is no number; set it to {}", suggestion)};
    }
  }
  if (threads > suggestion) {
    return {"threads", Health::kWarning,
            fmt::format("{}: more threads than cores wait for each other", value),
            fmt::format("export OMP_NUM_THREADS={}", suggestion)};
  }
  return {"threads", Health::kOk, value};
}

Finding judge_memory(const std::string& meminfo, std::optional<uint64_t> limit) {
  const auto bytes_of_key = [&](const char* key) {
    const std::string text = value_of(meminfo, key);
    double kib = 0;
    std::from_chars(text.data(), text.data() + text.size(), kib);
    return kib * 1024.0;
  };
  const double total = bytes_of_key("MemTotal"), available = bytes_of_key("MemAvailable");
  if (total <= 0) return {"memory", Health::kNote, "unknown", "see `free -h`; the quickstart needs 2 GiB"};
  const bool limited = limit && static_cast<double>(*limit) < total;
  const double usable = limited ? std::min(available, static_cast<double>(*limit)) : available;
  std::string value = fmt::format("{} of {} available", gib(available), gib(total));
  if (limited) value += fmt::format(", control group {}", gib(static_cast<double>(*limit)));
  if (usable < 2.0 * kGib) {
    return {"memory", Health::kWarning, value,
            "the quickstart needs 2 GiB: end other programs, or lower training.micro_batch_size"};
  }
  return {"memory", Health::kOk, value};
}

Finding judge_disk(const std::string& name, const DiskFacts& facts, uint64_t wanted_bytes,
                   const std::string& how_to_move) {
  const std::string value =
      fmt::format("{}: {} free", facts.path, gib(static_cast<double>(facts.free_bytes)));
  if (!facts.writable)
    return {name, Health::kFail, fmt::format("{}: cannot be written", facts.path), how_to_move};
  if (facts.free_bytes < wanted_bytes / 20)
    return {name, Health::kFail, value, fmt::format("make room, or {}", how_to_move)};
  if (facts.free_bytes < wanted_bytes) {
    return {name, Health::kWarning,
            fmt::format("{}, {} is comfortable", value, gib(static_cast<double>(wanted_bytes))),
            fmt::format("make room, or {}", how_to_move)};
  }
  return {name, Health::kOk, value};
}

std::optional<double> parse_cpu_quota(const std::string& cpu_max) {
  double quota = 0, period = 0;
  const char* const end = cpu_max.data() + cpu_max.size();
  const auto first = std::from_chars(cpu_max.data(), end, quota);
  if (first.ec != std::errc() || first.ptr == end) return std::nullopt;  // "max"
  const auto second = std::from_chars(first.ptr + 1, end, period);
  if (second.ec != std::errc() || period <= 0) return std::nullopt;
  return quota / period;
}

std::string render_findings(const std::vector<Finding>& findings) {
  size_t longest = 0;
  for (const auto& f : findings) longest = std::max(longest, f.name.size());
  std::string text;
  for (const auto& f : findings) {
    text += fmt::format("{:<8} {:<{}}  {}\n", health_name(f.health), f.name, longest, f.value);
    if (!f.remedy.empty()) text += fmt::format("{:<8} {:<{}}  -> {}\n", "", "", longest, f.remedy);
  }
  return text;
}

std::string render_findings_json(const std::vector<Finding>& findings) {
  std::vector<std::string> items;
  for (const auto& f : findings) {
    items.push_back(fmt::format(R"(  {{"name": {}, "health": "{}", "value": {}, "remedy": {}}})",
                                train::json_quote(f.name), health_name(f.health), train::json_quote(f.value),
                                f.remedy.empty() ? "null" : train::json_quote(f.remedy)));
  }
  return fmt::format("[\n{}\n]\n", fmt::join(items, ",\n"));
}

int doctor_exit_code(const std::vector<Finding>& findings) {
  const bool fails = std::any_of(findings.begin(), findings.end(),
                                 [](const Finding& f) { return f.health == Health::kFail; });
  return fails ? kFailed : kDone;
}

}  // namespace conclave::cli
