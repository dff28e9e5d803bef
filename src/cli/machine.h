// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

// What Linux tells about the machine; "" or 0 where it does not.
namespace conclave::cli {

std::string text_of_file(const char* path);
// Of the first line "key : value".
std::string value_of(const std::string& text, const std::string& key);
// Out of the text of /proc/cpuinfo; "unknown model" where it names none.
std::string cpu_model(const std::string& cpuinfo);
// Cores that this process may run on.
int allowed_cores();

}  // namespace conclave::cli
