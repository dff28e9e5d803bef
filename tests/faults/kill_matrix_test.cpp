// SPDX-License-Identifier: Apache-2.0
// A rank of a run over Gloo is killed at a named point of a step or of a save: the others end in time and say
// who is gone, and the run that continues is bit for bit the undisturbed one.
#include <csignal>
#include <map>

#include "comm/ranks.h"
#include "train/ranks_run.h"

namespace conclave::train {
namespace {

// Where this process dies: before the n-th operation of a name since the script was armed.
struct Script {
  std::string operation = {};
  int nth = 1;
  bool armed = false;
  bool saving = false;  // between the files of the ranks and the end of a save
  std::map<std::string, int> seen = {};

  void come_to(const std::string& name) {
    if (!armed) return;
    saving |= name == "world broadcast";
    const auto full = saving ? "saving " + name : name;
    if (full == operation && ++seen[full] == nth) std::raise(SIGKILL);
  }
};

// Tells the script of every operation. The groups of a run have their names in the order of their making.
class Killing : public comm::Communicator {
 public:
  Killing(std::shared_ptr<comm::Communicator> ranks, std::shared_ptr<Script> script,
          std::string name = "world")
      : ranks_(std::move(ranks)), script_(std::move(script)), name_(std::move(name)) {}
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  void abort(const std::string& reason) override { ranks_->abort(reason); }
  std::unique_ptr<comm::Communicator> split(int color, int key) override {
    constexpr const char* kNames[] = {"data", "expert", "expert_data"};
    return std::make_unique<Killing>(ranks_->split(color, key), script_, kNames[num_splits_++]);
  }

 private:
  void come_to(const char* operation) { script_->come_to(name_ + " " + operation); }
  comm::Work do_all_reduce(comm::Buffer buffer, comm::Reduction reduction) override {
    come_to("all_reduce");
    return ranks_->start_all_reduce(buffer, reduction);
  }
  comm::Work do_all_gather(comm::ConstBuffer in, comm::Buffer out, comm::Content content) override {
    come_to("all_gather");
    return ranks_->start_all_gather(in, out, content);
  }
  void do_broadcast(comm::Buffer buffer, int root) override {
    come_to("broadcast");
    ranks_->broadcast(buffer, root);
  }
  comm::Work do_all_to_all(comm::ConstBuffer in, std::span<const int64_t> in_counts, comm::Buffer out,
                           std::span<const int64_t> out_counts, comm::Content content) override {
    come_to("all_to_all");
    return ranks_->start_all_to_all(in, in_counts, out, out_counts, content);
  }
  void do_send(comm::ConstBuffer in, int to) override { ranks_->send(in, to); }
  void do_receive(comm::Buffer out, int from) override { ranks_->receive(out, from); }
  void do_barrier() override { ranks_->barrier(); }

  std::shared_ptr<comm::Communicator> ranks_;
  std::shared_ptr<Script> script_;
  std::string name_;
  size_t num_splits_ = 0;
};

struct KillPoint {
  const char* name;
  int rank;
  const char* operation;
  int nth;
};

class KillMatrix : public RanksRun {
 protected:
  // Four ranks; one of them dies in step 4, or in the save behind it.
  std::vector<std::string> train_and_die(const std::string& run, const KillPoint* point) {
    const Layout layout{.ranks = 4, .expert_parallel = 2};
    const auto config = read_for(
        layout, run,
        {"parallelism.zero_stage=1", "training.train_iters=6", "checkpoint.interval=2",
         "checkpoint.keep_latest_k=null", "evaluation.sample_tokens=9", "model.moe.num_shared_experts=1"});
    return comm::told_by_gloo_ranks(layout.ranks, [&](comm::Communicator& world) {
      const auto script = std::make_shared<Script>();
      TrainerHooks hooks;
      if (point && world.rank() == point->rank) {
        script->operation = point->operation;
        script->nth = point->nth;
        hooks.on_step = [script](const StepReport& report) { script->armed |= report.step == 3; };
      }
      Killing killing(comm::borrowed(world), script);
      train_rank(killing, layout, config, std::move(hooks));
    });
  }
};

TEST_F(KillMatrix, survivors_say_who_is_gone_and_the_run_goes_on_bit_for_bit) {
  const KillPoint points[] = {
      {"exchange of counts", 1, "expert all_gather", 1},
      {"between counts and rows", 1, "expert all_to_all", 1},
      {"combine", 1, "expert all_to_all", 3},
      {"backward exchange", 1, "expert all_to_all", 8},
      {"reduce-scatter of gradients", 1, "data all_to_all", 1},
      {"between update and all-gather of parameters", 1, "data all_gather", 1},
      {"between tensor files and manifest", 1, "saving world broadcast", 1},
      {"between manifest and latest", 0, "saving world all_reduce", 1},
  };
  for (const auto& text : train_and_die("whole", nullptr)) EXPECT_EQ(text, "");
  const auto whole = metrics("whole");
  ASSERT_FALSE(whole.empty());
  for (const auto& point : points) {
    SCOPED_TRACE(point.name);
    const auto start = std::chrono::steady_clock::now();
    const auto told = train_and_die("killed", &point);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
    for (int rank = 0; rank < 4; ++rank) {
      const auto& text = told[static_cast<size_t>(rank)];
      if (rank == point.rank) {
        EXPECT_EQ(text, "") << "was not killed";
      } else if (point.rank == 0) {  // which keeps the store
        EXPECT_TRUE(has(text, "rank 0 or the launcher, is gone")) << rank << ": " << text;
      } else {
        EXPECT_TRUE(has(text, fmt::format("rank {} of the run does not answer", point.rank)))
            << rank << ": " << text;
      }
    }
    const auto steps = store("killed").list();
    ASSERT_FALSE(steps.empty());
    EXPECT_EQ(steps.back(), point.rank == 0 ? 4 : 2) << "complete, or not there";
    for (const auto& text : train_and_die("killed", nullptr)) EXPECT_EQ(text, "");
    EXPECT_EQ(metrics("killed"), whole);
    for (const auto& entry : std::filesystem::directory_iterator(checkpoint("whole", 6)))
      EXPECT_EQ(bytes(checkpoint("killed", 6) / entry.path().filename()), bytes(entry.path()))
          << entry.path();
    std::filesystem::remove_all(folder_ / "killed");
    ASSERT_FALSE(HasFailure());
  }
}

}  // namespace
}  // namespace conclave::train
