// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/token_file.h"

#include <sys/wait.h>
#include <unistd.h>
#include <thread>

#include "data/helpers.h"

namespace conclave::data {
namespace {

namespace fs = std::filesystem;

// A vocabulary that needs 32 bits a token.
class WideTokenizer : public Tokenizer {
 public:
  int64_t vocab_size() const override { return 70001; }
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    for (const char c : text) ids.push_back(69000 + static_cast<unsigned char>(c));
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  int32_t document_mark() const override { return 70000; }
  int64_t bytes_of(int32_t token) const override { return token == 70000 ? 0 : 1; }
  std::string identity() const override { return "wide"; }
};

struct Fixture {
  TestFolder folder;
  LogLines log;
  fs::path cache() const { return folder.path() / "tokens"; }
  TokenSource source(const std::string& content) const {
    const auto path = folder.write("in.jsonl", content);
    return {.name = "in", .files = find_files(path.string()), .options = {.label_field = "topic"}};
  }
  TokenFile open(const TokenSource& from) { return open_tokens(from, *byte_tokenizer(), cache(), log.log()); }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& item : fs::directory_iterator(cache())) found.push_back(item.path());
    return found;
  }
};

std::vector<int32_t> tokens_of(const TokenFile& file, int64_t document) {
  std::vector<int32_t> ids(static_cast<size_t>(file.begin(document + 1) - file.begin(document)));
  file.copy(file.begin(document), ids);
  return ids;
}

TEST(TokenFile, DocumentsAreAMarkAndTheirTokens) {
  Fixture f;
  const auto file =
      f.open(f.source("{\"text\":\"ab\",\"topic\":\"u\"}\n{\"text\":\"\",\"topic\":\"v\"}\n"
                      "{\"text\":\"c\",\"topic\":\"w\"}\n{\"text\":\"ab\",\"topic\":\"u\"}\n"));
  ASSERT_EQ(file.num_documents(), 3);  // the one without text is left out
  EXPECT_EQ(tokens_of(file, 0), (std::vector<int32_t>{256, 'a', 'b'}));
  EXPECT_EQ(tokens_of(file, 1), (std::vector<int32_t>{256, 'c'}));
  EXPECT_EQ(file.num_tokens(), 8);
  EXPECT_EQ(file.domain_names(), (std::vector<std::string>{"u", "w"}));
  EXPECT_EQ(file.domain(1), 1);
  EXPECT_EQ(file.content_hash(0), file.content_hash(2));
  EXPECT_NE(file.content_hash(0), file.content_hash(1));
  EXPECT_TRUE(f.log.mention("1 documents without text"));
}

TEST(TokenFile, LargeVocabulariesAreStoredIn32Bits) {
  Fixture f;
  const WideTokenizer tokenizer;
  const auto file = open_tokens(f.source(toy_jsonl(7)), tokenizer, f.cache(), Log());
  EXPECT_EQ(tokens_of(file, 3)[0], 70000);
  EXPECT_EQ(tokens_of(file, 3)[1], 69000 + 'd');
}

TEST(TokenFile, ASecondOpenReadsTheCache) {
  Fixture f;
  const auto source = f.source(toy_jsonl(19));
  f.open(source);
  const auto written = fs::last_write_time(f.files().front());
  f.log.lines.clear();
  EXPECT_EQ(f.open(source).num_documents(), 19);
  EXPECT_EQ(f.files().size(), 1u);  // no lock, no temporary file
  EXPECT_EQ(fs::last_write_time(f.files().front()), written);
  EXPECT_TRUE(f.log.lines.empty());
}

TEST(TokenFile, EverythingThatTheContentDependsOnIsInTheKey) {
  Fixture f;
  const auto source = f.source("{\"text\":\"ab\",\"topic\":\"u\",\"other\":\"cd\"}\n");
  const std::string key = f.open(source).key();
  auto changed =
      f.source("{\"text\":\"ax\",\"topic\":\"u\",\"other\":\"cd\"}\n");  // same size, maybe same time
  EXPECT_NE(f.open(changed).key(), key);
  EXPECT_EQ(tokens_of(f.open(changed), 0).back(), 'x');
  auto field = f.source("{\"text\":\"ab\",\"topic\":\"u\",\"other\":\"cd\"}\n");
  EXPECT_EQ(f.open(field).key(), key);
  field.options.text_field = "other";
  EXPECT_NE(f.open(field).key(), key);
  field = source;
  field.options.label_field.reset();
  EXPECT_NE(f.open(field).key(), key);
  EXPECT_NE(open_tokens(source, WideTokenizer(), f.cache(), Log()).key(), key);
}

TEST(TokenFile, MovingTheSourceKeepsItsCache) {
  Fixture f;
  const std::string key = f.open(f.source(toy_jsonl(5))).key();
  fs::create_directories(f.folder.path() / "elsewhere");
  fs::rename(f.folder.path() / "in.jsonl", f.folder.path() / "elsewhere/in.jsonl");
  TokenSource moved = {.name = "in",
                       .files = find_files((f.folder.path() / "elsewhere/in.jsonl").string()),
                       .options = {.label_field = "topic"}};
  EXPECT_EQ(f.open(moved).key(), key);
}

TEST(TokenFile, ADamagedCacheIsRefusedAndMadeAgain) {
  Fixture f;
  const auto source = f.source(toy_jsonl(31));
  const auto whole = f.open(source);
  const auto path = f.files().front();
  const auto size = fs::file_size(path);
  const auto flip = [&](int64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(at);
    file.put(byte);
  };
  const std::vector<std::function<void()>> damages = {[&] { fs::resize_file(path, size - 3); },
                                                      [&] { fs::resize_file(path, 0); },
                                                      [&] { fs::resize_file(path, size + 8); },
                                                      [&] { flip(3); },
                                                      [&] { flip(20); },
                                                      [&] { flip(static_cast<int64_t>(size) / 2); }};
  for (const auto& damage : damages) {
    damage();
    f.log.lines.clear();
    expect_contains(error_of([&] { TokenFile(path, whole.key()); }), {"not a whole token file", "remove it"});
    EXPECT_EQ(f.open(source).num_tokens(), whole.num_tokens());
    EXPECT_TRUE(f.log.mention("not a whole token file"));
  }
  expect_contains(error_of([&] { TokenFile(path, std::string(32, '0')); }), {"another source"});
}

TEST(TokenFile, TwoBuildersAtOnceMakeOneWholeFile) {
  Fixture f;
  const auto source = f.source(toy_jsonl(20011));
  std::vector<int64_t> tokens(3, 0);
  std::vector<std::thread> threads;
  for (auto& count : tokens) {
    threads.emplace_back(
        [&] { count = open_tokens(source, *byte_tokenizer(), f.cache(), Log()).num_tokens(); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(tokens[0], 20011);
  EXPECT_EQ(tokens[1], tokens[0]);
  EXPECT_EQ(tokens[2], tokens[0]);
  EXPECT_EQ(f.files().size(), 1u);
}

TEST(TokenFile, AKilledBuilderLeavesNothingThatLooksWhole) {
  Fixture f;
  const auto source = f.source(toy_jsonl(40009));
  for (const int after_us : {500, 3000, 9000}) {
    const pid_t child = ::fork();
    if (child == 0) {
      open_tokens(source, *byte_tokenizer(), f.cache(), Log());
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(after_us));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  const auto file = f.open(source);
  EXPECT_EQ(file.num_documents(), 40009);
  EXPECT_EQ(f.files().size(), 1u);  // leftovers of the killed ones are gone
}

TEST(TokenFile, BadSourcesSayWhatIsWrong) {
  Fixture f;
  expect_contains(error_of([&] { f.open(f.source("")); }), {"holds no text", "in.jsonl"});
  expect_contains(error_of([&] { f.open(f.source("{\"text\":\"\",\"topic\":\"a\"}\n")); }),
                  {"holds no text", "1 documents"});
  std::string many;
  for (int i = 0; i < 5000; ++i) many += "{\"text\":\"a\",\"topic\":\"" + std::to_string(i) + "\"}\n";
  expect_contains(error_of([&] { f.open(f.source(many)); }), {"4096 different labels", "label_field"});
  EXPECT_TRUE(f.files().empty());  // a failed build leaves nothing
}

TEST(TokenFile, AFolderThatCannotBeMadeIsNamedWithTheRemedy) {
  Fixture f;
  const auto source = f.source(toy_jsonl(3));
  const auto blocked = f.folder.write("blocked", "a file, not a folder") / "tokens";
  expect_contains(error_of([&] { open_tokens(source, *byte_tokenizer(), blocked, Log()); }),
                  {"blocked", "CONCLAVE_CACHE"});
}

}  // namespace
}  // namespace conclave::data
