// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include "conclave/core/error.h"
#include "line_source.h"

namespace conclave::data {

namespace {

constexpr size_t kChunkBytes = 1 << 18;

[[noreturn]] void fail_on_source(const std::filesystem::path& path, const std::string& what) {
  throw Error(fmt::format("cannot read '{}': {}", path.string(), what), Error::Kind::kData);
}

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(std::filesystem::path path)
      : path_(std::move(path)), file_(std::fopen(path_.c_str(), "rbe")) {
    if (!file_) fail_on_source(path_, std::strerror(errno));
  }
  ~PlainSource() override { std::fclose(file_); }
  PlainSource(const PlainSource&) = delete;
  PlainSource& operator=(const PlainSource&) = delete;

  bool read(std::string& chunk) override {
    chunk.resize(kChunkBytes);
    const size_t count = std::fread(chunk.data(), 1, chunk.size(), file_);
    if (count == 0 && std::ferror(file_) != 0) fail_on_source(path_, std::strerror(errno));
    chunk.resize(count);
    return count > 0;
  }

 private:
  std::filesystem::path path_;
  std::FILE* file_;
};

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::filesystem::path path)
      : path_(std::move(path)), file_(::gzopen(path_.c_str(), "rbe")) {
    if (!file_) fail_on_source(path_, std::strerror(errno));
    // Without this zlib would pass a file that is no archive through as it is.
    std::FILE* raw = std::fopen(path_.c_str(), "rbe");
    unsigned char magic[2] = {0, 0};
    const size_t count = raw ? std::fread(magic, 1, 2, raw) : 0;
    if (raw) std::fclose(raw);
    if (count < 2 || magic[0] != 0x1F || magic[1] != 0x8B) {
      ::gzclose(file_);
      fail_on_source(path_, "it is not a gzip archive; rename it or compress it");
    }
  }
  ~GzipSource() override { ::gzclose(file_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  bool read(std::string& chunk) override {
    chunk.resize(kChunkBytes);
    const int count = ::gzread(file_, chunk.data(), static_cast<unsigned>(chunk.size()));
    int code = Z_OK;
    const char* reason = ::gzerror(file_, &code);
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      fail_on_source(path_, fmt::format("damaged or truncated gzip archive ({})", reason));
    }
    chunk.resize(static_cast<size_t>(count));
    return count > 0;
  }

 private:
  std::filesystem::path path_;
  ::gzFile file_;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(std::filesystem::path path)
      : path_(path), packed_(std::move(path)), stream_(::ZSTD_createDStream(), ::ZSTD_freeDStream) {
    if (!stream_) fail_on_source(path_, "no memory for the zstd decoder");
  }

  bool read(std::string& chunk) override {
    chunk.resize(kChunkBytes);
    ZSTD_outBuffer output = {chunk.data(), chunk.size(), 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size) {
        if (!packed_.read(packed_chunk_)) {
          if (!frame_done_) fail_on_source(path_, "truncated zstd archive");
          return false;
        }
        input_ = {packed_chunk_.data(), packed_chunk_.size(), 0};
      }
      const size_t code = ::ZSTD_decompressStream(stream_.get(), &output, &input_);
      if (::ZSTD_isError(code)) {
        fail_on_source(path_, fmt::format("damaged zstd archive ({})", ::ZSTD_getErrorName(code)));
      }
      frame_done_ = code == 0;
    }
    chunk.resize(output.pos);
    return true;
  }

 private:
  std::filesystem::path path_;
  PlainSource packed_;
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  std::string packed_chunk_;
  ZSTD_inBuffer input_ = {nullptr, 0, 0};
  bool frame_done_ = false;  // so that an empty file is a truncated archive
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) fail_on_source(path, "it is a folder");
  if (path.extension() == ".gz") return std::make_unique<GzipSource>(path);
  if (path.extension() == ".zst") return std::make_unique<ZstdSource>(path);
  return std::make_unique<PlainSource>(path);
}

bool LineSource::next(std::string& line) {
  line.clear();
  while (true) {
    const size_t end = buffer_.find('\n', at_);
    if (end != std::string::npos) {
      line.append(buffer_, at_, end - at_);
      at_ = end + 1;
      break;
    }
    line.append(buffer_, at_);
    at_ = buffer_.size();
    if (ended_ || !bytes_->read(buffer_)) {
      ended_ = true;
      buffer_.clear();
      at_ = 0;
      if (line.empty()) return false;
      break;
    }
    at_ = 0;
  }
  if (line.ends_with('\r')) line.pop_back();
  ++number_;
  return true;
}

}  // namespace conclave::data
