// SPDX-License-Identifier: Apache-2.0
// What surrounds the program: full and read-only disks, closed streams, the current folder, locale and time
// zone.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tiny_run.h"

namespace conclave::cli_tests {
namespace {

class Surroundings : public TinyRun {
 protected:
  Ended train_with(const std::string& run, ProgramOptions options,
                   const std::vector<std::string>& more = {}) {
    return run_program(train_arguments(run, more), options);
  }
};

TEST_F(Surroundings, a_checkpoint_that_does_not_fit_is_reported_and_training_goes_on_or_stops_as_configured) {
  ASSERT_EQ(train("warm", {"training.exit_after=1"}).exit_code, 0);  // the token cache is there
  ProgramOptions options = here();
  options.file_size_limit = 40'000;  // larger than every file but the model's and the optimizer's
  const std::vector<std::string> steps = {"training.train_iters=9", "checkpoint.interval=3"};
  const Ended goes_on = train_with("on", options, steps);
  expect_words(goes_on.err, {"step 3: the checkpoint was not saved, training goes on", "cannot write",
                             "File too large", "step 6: the checkpoint was not saved"});
  EXPECT_EQ(newest_step("on"), 9);
  auto stopping = steps;
  stopping.push_back("checkpoint.on_save_error=stop");
  const Ended stops = train_with("off", options, stopping);
  EXPECT_EQ(stops.exit_code, kFailed) << stops.err;
  expect_words(stops.err, {"File too large"});
  EXPECT_EQ(newest_step("off"), 3);
}

// A file system of the child's own on `folder`; ends the child where user namespaces are not allowed.
constexpr int kNoNamespace = 90;
void mount_disk(const std::filesystem::path& folder, unsigned long flags, const char* options) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ::_exit(kNoNamespace);
  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  if (::mount("none", folder.c_str(), "tmpfs", flags, options) != 0) ::_exit(kNoNamespace);
}

TEST_F(Surroundings, a_full_disk_is_named_with_what_was_needed) {
  ASSERT_EQ(train("warm", {"training.exit_after=1"}).exit_code, 0);
  std::filesystem::create_directories(path("disk"));
  ProgramOptions options = here();
  options.before_exec = [disk = path("disk")] { mount_disk(disk, 0, "size=160k"); };
  const Ended ended = train_with("disk/run", options,
                                 {"training.train_iters=9", "checkpoint.interval=3",
                                  "checkpoint.on_save_error=stop", "logging.metrics=[jsonl]"});
  if (ended.exit_code == kNoNamespace) GTEST_SKIP() << "no user namespace, no small disk";
  EXPECT_EQ(ended.exit_code, kFailed) << ended.err;
  expect_words(ended.err, {"No space left on device", "bytes"});
}

TEST_F(Surroundings, a_folder_that_cannot_be_made_is_named) {
  write("file", "not a folder");
  const Ended ended = train("file/run");
  EXPECT_EQ(ended.exit_code, kFailed);
  expect_words(ended.err, {"cannot use the run folder", "file/run", "choose another run.output_dir"});
}

TEST_F(Surroundings, a_read_only_folder_is_named) {
  std::filesystem::create_directories(path("sealed"));
  ProgramOptions options = here();
  options.before_exec = [disk = path("sealed")] { mount_disk(disk, MS_RDONLY, nullptr); };
  const Ended ended = train_with("sealed/run", options);
  if (ended.exit_code == kNoNamespace) GTEST_SKIP() << "no user namespace, no read-only disk";
  EXPECT_EQ(ended.exit_code, kFailed) << ended.err;
  expect_words(ended.err, {"cannot use the run folder", "sealed/run", "Read-only file system",
                           "choose another run.output_dir"});
}

TEST_F(Surroundings, a_closed_or_full_standard_output_is_an_error_of_the_command) {
  const auto pipe_without_reader = [] {
    int ends[2];
    if (::pipe(ends) != 0 || ::dup2(ends[1], STDOUT_FILENO) < 0) ::_exit(126);
    ::close(ends[0]);
    ::close(ends[1]);
  };
  const auto full = [] {
    const int device = ::open("/dev/full", O_WRONLY);
    if (device < 0 || ::dup2(device, STDOUT_FILENO) < 0) ::_exit(126);
  };
  const auto closed = [] { ::close(STDOUT_FILENO); };
  for (const auto& arrange : {std::function<void()>(pipe_without_reader), std::function<void()>(full),
                              std::function<void()>(closed)}) {
    ProgramOptions options = here();
    options.before_exec = arrange;
    for (const auto& command : {std::vector<std::string>{"version"}, {"config", "reference"}}) {
      const Ended ended = run_program(command, options);
      EXPECT_EQ(ended.exit_code, kFailed) << ended.signal;
      expect_words(ended.err, {"standard output"});
    }
  }
}

TEST_F(Surroundings, closed_streams_cost_a_run_neither_its_files_nor_its_checkpoint) {
  ASSERT_EQ(train("open", {"training.train_iters=5"}).exit_code, 0);
  ProgramOptions options = here();
  options.before_exec = [] {
    for (const int stream : {0, 1, 2}) ::close(stream);
  };
  EXPECT_EQ(train_with("closed", options, {"training.train_iters=5"}).exit_code, kFailed);
  EXPECT_EQ(metrics("closed"), metrics("open"));
  EXPECT_EQ(text("closed/checkpoints/step-00000005/model.safetensors"),
            text("open/checkpoints/step-00000005/model.safetensors"));
  EXPECT_EQ(train("closed", {"training.train_iters=5"}).exit_code, 0);
}

TEST_F(Surroundings, neither_folder_nor_locale_nor_time_zone_changes_a_result) {
  ASSERT_EQ(train("here", {"training.train_iters=4"}).exit_code, 0);
  std::filesystem::create_directories(path("elsewhere"));
  ProgramOptions options = here();
  options.folder = path("elsewhere");
  options.environment["TZ"] = "Asia/Kathmandu";
  options.environment["LC_ALL"] = "de_DE.UTF-8";
  options.environment["LANGUAGE"] = "de";
  options.environment["COLUMNS"] = "17";
  const Ended ended = run_program({"train", path("tiny.yaml"), "run.output_dir=run",
                                   "data.train.0.path=../text.txt", "training.train_iters=4"},
                                  options);
  ASSERT_EQ(ended.exit_code, 0) << ended.err;
  EXPECT_EQ(metrics("elsewhere/run"), metrics("here"));
  EXPECT_EQ(text("elsewhere/run/checkpoints/step-00000004/model.safetensors"),
            text("here/checkpoints/step-00000004/model.safetensors"));
}

TEST_F(Surroundings, threads_workers_logging_and_evaluation_do_not_change_what_is_learnt) {
  const std::vector<std::string> steps = {"training.train_iters=6", "training.precision=fp64"};
  ASSERT_EQ(train("base", steps).exit_code, 0);
  const std::string model = "/checkpoints/step-00000006/model.safetensors", want = text("base" + model);
  int number = 0;
  for (const char* change :
       {"data.num_workers=0", "logging.interval=4", "evaluation.at_start=true", "checkpoint.interval=2"}) {
    auto overrides = steps;
    overrides.push_back(change);
    const std::string run = fmt::format("run{}", ++number);
    ASSERT_EQ(train(run, overrides).exit_code, 0) << change;
    EXPECT_EQ(text(run + model), want) << change;
  }
  ProgramOptions options = here();
  options.environment["OMP_NUM_THREADS"] = "3";
  ASSERT_EQ(train_with("threads", options, steps).exit_code, 0);
  const auto last_loss = [&](const std::string& run) {
    return nlohmann::json::parse(metrics(run).back()).at("final/loss").get<double>();
  };
  EXPECT_NEAR(last_loss("threads"), last_loss("base"), 1e-9 * last_loss("base"));
}

TEST_F(Surroundings, the_run_folder_names_versions_machine_and_what_of_the_environment_counts) {
  ProgramOptions options = here();
  options.environment["OMP_NUM_THREADS"] = "1";
  ASSERT_EQ(train_with("run", options, {"training.exit_after=1"}).exit_code, 0);
  const auto facts = nlohmann::json::parse(text("run/environment.json"));
  EXPECT_EQ("conclave " + facts.at("conclave").get<std::string>() + " (torch " +
                facts.at("torch").get<std::string>() + ")\n",
            conclave({"version"}).out);
  EXPECT_EQ(facts.at("threads"), 1);
  EXPECT_EQ(facts.at("environment").at("OMP_NUM_THREADS"), "1");
  for (const char* name : {"compiler", "system", "cpu"}) EXPECT_NE(facts.at(name), "") << name;
}

TEST_F(Surroundings, data_describe_counts_a_single_document_whole) {
  write("one.txt", "abcabc");
  const Ended ended = conclave({"data", "describe", "one.txt"});
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  // Three letters equally often; after one letter (or the mark before the document) the next is certain.
  expect_words(ended.out, {"all", " 1 ", " 6 ", "1.585", "0.000", "0.000"});
}

}  // namespace
}  // namespace conclave::cli_tests
