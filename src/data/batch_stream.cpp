// SPDX-License-Identifier: Apache-2.0
#include "conclave/data/batch_stream.h"

#include <condition_variable>
#include <csignal>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "conclave/core/error.h"

namespace conclave::data {

namespace {

constexpr size_t kPrefetchedBatches = 2;

std::vector<SamplerSource> sampler_sources(const std::vector<StreamSource>& sources) {
  std::vector<SamplerSource> result;
  for (const auto& source : sources) result.push_back({source.packer->num_windows(), source.weight});
  return result;
}

std::vector<StreamSource> stream_sources(const Dataset& dataset) {
  std::vector<StreamSource> result;
  for (const auto& source : dataset.train) {
    result.push_back({make_packer(dataset.options.packing, source.documents, dataset.options.seq_length,
                                  dataset.tokenizer->document_mark()),
                      source.weight});
  }
  return result;
}

StreamOptions filled_in(StreamOptions options, bool shuffle, int64_t num_workers) {
  options.shuffle = options.shuffle.value_or(shuffle);
  options.num_workers = options.num_workers.value_or(num_workers);
  return options;
}

}  // namespace

struct BatchStream::State {
  struct Prepared {
    Batch batch = {};
    SamplerState after = {};
    std::exception_ptr error = {};
  };

  State(std::vector<StreamSource> from, std::shared_ptr<const Tokenizer> vocabulary, int64_t length,
        const StreamOptions& stream_options, std::string data_fingerprint)
      : sources(std::move(from)),
        tokenizer(std::move(vocabulary)),
        seq_length(length),
        options(stream_options),
        fingerprint(std::move(data_fingerprint)),
        ahead(sampler_sources(sources), options.seed, *options.shuffle),
        taken(ahead.state()) {}
  ~State() { stop(); }

  // The next batch of this rank; moves `sampler` on only when it succeeds.
  Prepared prepare(Sampler& sampler) const {
    Sampler moved = sampler;
    Prepared result;
    result.batch = empty_batch(options.micro_batch_size, seq_length);
    moved.skip(options.rank * options.micro_batch_size);
    for (int64_t row = 0; row < options.micro_batch_size; ++row) {
      const SampleRef sample = moved.next();
      sources[static_cast<size_t>(sample.source)].packer->fill(sample.window, row, result.batch);
      for (int64_t column = 0; column < seq_length; ++column) {
        result.batch.global_id[static_cast<size_t>(row * seq_length + column)] =
            sample.index * seq_length + column;
      }
    }
    moved.skip((options.num_ranks - 1 - options.rank) * options.micro_batch_size);
    count_tokens(result.batch, *tokenizer);
    result.after = moved.state();
    sampler = std::move(moved);
    return result;
  }

  Prepared take() {
    if (options.num_workers == 0) return prepare(ahead);
    if (!worker.joinable()) worker = std::thread([this] { work(); });
    std::unique_lock lock(mutex);
    filled.wait(lock, [this] { return !queue.empty(); });
    if (queue.front().error) std::rethrow_exception(queue.front().error);  // stays in front
    Prepared first = std::move(queue.front());
    queue.pop_front();
    emptied.notify_one();
    return first;
  }

  void work() {
    // Signals belong to the host's own threads.
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    while (true) {
      Prepared item;
      try {
        item = prepare(ahead);
      } catch (...) {
        item.error = std::current_exception();
      }
      const bool failed = item.error != nullptr;
      std::unique_lock lock(mutex);
      emptied.wait(lock, [this] { return stopping || queue.size() < kPrefetchedBatches; });
      if (stopping) return;
      queue.push_back(std::move(item));
      filled.notify_one();
      if (failed) return;
    }
  }

  void stop() {
    if (!worker.joinable()) return;
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    emptied.notify_one();
    worker.join();
    queue.clear();
    stopping = false;
  }

  const std::vector<StreamSource> sources;
  const std::shared_ptr<const Tokenizer> tokenizer;
  const int64_t seq_length;
  const StreamOptions options;
  const std::string fingerprint;
  Sampler ahead;       // belongs to the worker while it runs
  SamplerState taken;  // after the last batch that the caller got
  std::thread worker;
  std::mutex mutex;
  std::condition_variable filled, emptied;
  std::deque<Prepared> queue;
  bool stopping = false;
};

BatchStream::BatchStream(const Dataset& dataset, const StreamOptions& options)
    : BatchStream(stream_sources(dataset), dataset.tokenizer, dataset.options.seq_length,
                  filled_in(options, dataset.options.shuffle, dataset.options.num_workers),
                  dataset.fingerprint) {}

BatchStream::BatchStream(std::vector<StreamSource> sources, std::shared_ptr<const Tokenizer> tokenizer,
                         int64_t seq_length, const StreamOptions& options, std::string fingerprint) {
  CONCLAVE_CHECK(options.micro_batch_size > 0,
                 fmt::format("micro_batch_size is {}", options.micro_batch_size));
  CONCLAVE_CHECK(options.rank >= 0 && options.rank < options.num_ranks,
                 fmt::format("rank {} of {}", options.rank, options.num_ranks));
  const StreamOptions filled = filled_in(options, true, 1);
  CONCLAVE_CHECK(filled.num_workers == 0 || filled.num_workers == 1,
                 fmt::format("num_workers is {}, but 0 and 1 are what there is", *filled.num_workers));
  state_ = std::make_unique<State>(std::move(sources), std::move(tokenizer), seq_length, filled,
                                   std::move(fingerprint));
}

BatchStream::~BatchStream() = default;
BatchStream::BatchStream(BatchStream&&) noexcept = default;
BatchStream& BatchStream::operator=(BatchStream&&) noexcept = default;

Batch BatchStream::next() {
  State::Prepared first = state_->take();
  state_->taken = std::move(first.after);
  return std::move(first.batch);
}

SamplerState BatchStream::state() const {
  SamplerState state = state_->taken;
  state.fingerprint = state_->fingerprint;
  return state;
}

void BatchStream::restore(const SamplerState& state) {
  if (!state.fingerprint.empty() && !state_->fingerprint.empty() &&
      state.fingerprint != state_->fingerprint) {
    throw Error(
        "the saved data position belongs to other data: a source, its held-out share, the tokenizer, "
        "seq_length or "
        "packing has changed. Restore what the run was started with, or start from its weights only",
        Error::Kind::kData);
  }
  // On a fresh sampler first: the present one belongs to the worker, and a refused state must change nothing.
  Sampler restored(sampler_sources(state_->sources), state_->options.seed, *state_->options.shuffle);
  restored.restore(state);
  state_->stop();
  state_->ahead = std::move(restored);
  state_->taken = state;
}

SampleTotals BatchStream::totals(int64_t num_samples) const {
  Sampler sampler(sampler_sources(state_->sources), state_->options.seed, *state_->options.shuffle);
  sampler.restore(state_->taken);
  SampleTotals totals;
  for (int64_t i = 0; i < num_samples; ++i) {
    const SampleRef sample = sampler.next();
    const int64_t tokens =
        state_->sources[static_cast<size_t>(sample.source)].packer->num_tokens(sample.window);
    totals.num_sequences += tokens > 0 ? 1 : 0;
    totals.num_tokens += tokens;
    totals.num_targets += tokens;  // a packer gives each token a target
  }
  return totals;
}

int64_t BatchStream::num_windows() const {
  int64_t sum = 0;
  for (const auto& source : state_->sources) sum += source.packer->num_windows();
  return sum;
}

}  // namespace conclave::data
