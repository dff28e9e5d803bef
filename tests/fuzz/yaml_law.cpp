// SPDX-License-Identifier: Apache-2.0
#include "config/sample.h"
#include "laws.h"

namespace conclave::fuzz {

bool yaml_law(const std::string& text) {
  using namespace config_sample;
  try {
    Node node = parse_yaml("m.yaml", text);
    Problems problems;
    interpolate(node, nullptr, problems);
    Root root;
    const Tables t = tables();
    read_fields(declare(root), &t, node, "", problems);
    problems.throw_if_any();
    const std::string dumped = dump(root);
    require(errors_of(dumped).empty(), "the dump is refused: " + errors_of(dumped));
    Root again = read(dumped);
    require(dump(again) == dumped, "the dump is not a fixed point: " + dumped);
    return true;
  } catch (const ConfigError& error) {
    require(std::string(error.what()).rfind("m.yaml:", 0) == 0, std::string("no position: ") + error.what());
    return false;
  }
}

}  // namespace conclave::fuzz
