// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <clocale>
#include <cstdlib>
#include <fstream>
#include <string>

#include "train/temporary_folder.h"

namespace conclave {

// While it lives, the C library writes numbers as 1234,5. The locale is made for the purpose, so none need be
// installed; `active()` is false where there is no localedef.
class CommaLocale {
 public:
  CommaLocale() : before_(std::setlocale(LC_NUMERIC, nullptr)) {
    std::ofstream(folder_ / "source")
        << "LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \".\"\ngrouping 3;3\n"
           "END LC_NUMERIC\n";
    const std::string command = "cd '" + folder_.path().string() +
                                "' && localedef -c -i source -f ANSI_X3.4-1968 ./comma >/dev/null 2>&1";
    if (std::system(command.c_str()) < 0) return;  // warnings about the other categories are an exit code too
    ::setenv("LOCPATH", folder_.path().c_str(), 1);
    active_ = std::setlocale(LC_NUMERIC, "comma") != nullptr;
    ::unsetenv("LOCPATH");
  }
  ~CommaLocale() { std::setlocale(LC_NUMERIC, before_.c_str()); }
  CommaLocale(const CommaLocale&) = delete;
  CommaLocale& operator=(const CommaLocale&) = delete;
  bool active() const { return active_; }

 private:
  train::TemporaryFolder folder_;
  std::string before_;
  bool active_ = false;
};

}  // namespace conclave
