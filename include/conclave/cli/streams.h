// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace conclave::cli {

// A program started with a closed standard stream would get that number for the next file it opens, and what
// it says would land in a checkpoint. Puts /dev/null there, opened so that using the stream still fails.
void reserve_standard_streams();

// Flushes standard output. Throws Error when what was printed did not arrive (closed, full disk).
void finish_standard_output();

// While it lives, writing to a pipe that nobody reads is an error of the write and not the end of the
// program: a run does not die with the `head` that watched it.
class BrokenPipesAreErrors {
 public:
  BrokenPipesAreErrors();
  ~BrokenPipesAreErrors();
  BrokenPipesAreErrors(const BrokenPipesAreErrors&) = delete;
  BrokenPipesAreErrors& operator=(const BrokenPipesAreErrors&) = delete;

 private:
  void (*before_)(int);
};

}  // namespace conclave::cli
