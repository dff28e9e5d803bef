// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/corpus.h"

#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <thread>

#include "conclave/data/digest.h"
#include "conclave/data/statistics.h"
#include "data/helpers.h"

namespace conclave::data {
namespace {

namespace fs = std::filesystem;

struct Fixture {
  TestFolder folder;
  LogLines log;
  std::atomic<int> builds = 0;
  int delay_us = 0;
  bool write_manifest = true;

  std::vector<CorpusEntry> table() {
    return {{.name = "toy", .doc = "", .folder = "toy-v3", .build = [this](const fs::path& to, const Log&) {
               ++builds;
               std::ofstream(to / "u.jsonl") << "{\"text\":\"abc\",\"label\":\"\",\"id\":\"1\"}\n";
               ::usleep(static_cast<useconds_t>(delay_us));
               if (!write_manifest) return;
               std::ofstream(to / "manifest.json") << R"({"domains": [{"file": "u.jsonl", "xxh3": ")"
                                                   << hash128_of_file(to / "u.jsonl") << "\"}]}";
             }}};
  }
  fs::path corpora() const { return folder.path() / "corpora"; }
  fs::path open() { return open_corpus("toy", corpora(), log.log(), table()); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(corpora()), fs::directory_iterator()));
  }
};

TEST(Corpus, IsBuiltOnceAndThenFound) {
  Fixture f;
  EXPECT_EQ(f.open(), f.corpora() / "toy-v3");
  f.open();
  EXPECT_EQ(f.builds, 1);
  EXPECT_EQ(f.entries(), 1u);
}

TEST(Corpus, ADamagedOneIsMadeAgain) {
  Fixture f;
  const auto folder = f.open();
  const std::vector<std::function<void()>> damages = {
      [&] { std::ofstream(folder / "u.jsonl", std::ios::app) << "x"; },
      [&] { fs::resize_file(folder / "u.jsonl", 5); }, [&] { fs::remove(folder / "u.jsonl"); },
      [&] { fs::remove(folder / "manifest.json"); }, [&] { fs::resize_file(folder / "manifest.json", 9); }};
  int builds = 1;
  for (const auto& damage : damages) {
    damage();
    f.log.lines.clear();
    f.open();
    EXPECT_EQ(f.builds, ++builds);
    EXPECT_TRUE(f.log.mention("is not whole"));
  }
}

TEST(Corpus, TwoBuildersAtOnceBuildOnce) {
  Fixture f;
  f.delay_us = 50000;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] { open_corpus("toy", f.corpora(), Log(), f.table()); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(f.builds, 1);
  EXPECT_EQ(f.entries(), 1u);
}

TEST(Corpus, AKilledBuilderLeavesNothingThatLooksWhole) {
  Fixture f;
  f.delay_us = 10'000'000;
  const pid_t child = ::fork();
  if (child == 0) {
    f.open();
    ::_exit(0);
  }
  while (!fs::exists(f.corpora()) || f.entries() < 2) ::usleep(1000);  // its lock and its build folder
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(fs::exists(f.corpora() / "toy-v3"));
  f.delay_us = 0;
  f.open();
  EXPECT_EQ(f.entries(), 1u);  // the lock and the folder of the killed one are gone
}

TEST(Corpus, AFailedBuildLeavesNothing) {
  Fixture f;
  f.write_manifest = false;
  expect_contains(error_of([&] { f.open(); }), {"'toy'", "no manifest.json"});
  EXPECT_EQ(f.entries(), 0u);
}

TEST(Digest, PublishedVectors) {
  Sha256 empty, abc, split;
  EXPECT_EQ(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  abc.update("abc");
  EXPECT_EQ(abc.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  for (int i = 0; i < 1000; ++i) split.update(std::string(1000, 'a'));
  EXPECT_EQ(split.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(crc32_of("123456789"), 0xCBF43926u);
}

}  // namespace
}  // namespace conclave::data
