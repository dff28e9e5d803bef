// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/launch.h"

#include <map>

#include <gtest/gtest.h>

#include "conclave/core/error.h"

namespace conclave::comm {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<Launch> launch(const Variables& variables) {
  return read_launch([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string refusal(const Variables& variables) {
  try {
    launch(variables);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

Variables torchrun() {
  return {{"RANK", "3"},
          {"WORLD_SIZE", "4"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "2"},
          {"MASTER_ADDR", "node7"},
          {"MASTER_PORT", "29511"},
          {"TORCHELASTIC_RUN_ID", "job"},
          {"TORCHELASTIC_RESTART_COUNT", "2"}};
}

TEST(ReadLaunch, a_process_that_was_started_alone_is_no_rank) {
  EXPECT_FALSE(launch({}));
  EXPECT_FALSE(launch({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}));
  EXPECT_FALSE(launch({{"SLURM_NTASKS", "8"}})) << "a shell inside an allocation";
}

TEST(ReadLaunch, torchrun) {
  auto variables = torchrun();
  const auto l = launch(variables);
  ASSERT_TRUE(l);
  EXPECT_EQ(l->launcher, "torchrun");
  EXPECT_EQ(l->rank, 3);
  EXPECT_EQ(l->world_size, 4);
  EXPECT_EQ(l->local_rank, 1);
  EXPECT_EQ(l->rendezvous.rank, 3);
  EXPECT_EQ(l->rendezvous.size, 4);
  EXPECT_EQ(l->rendezvous.master_address, "node7");
  EXPECT_EQ(l->rendezvous.master_port, 29511);
  EXPECT_EQ(l->rendezvous.prefix, "conclave/job/2");
  EXPECT_FALSE(l->rendezvous.store_is_elsewhere);
  variables.insert_or_assign("TORCHELASTIC_USE_AGENT_STORE", std::string("True"));
  EXPECT_TRUE(launch(variables)->rendezvous.store_is_elsewhere);
}

TEST(ReadLaunch, mpirun_and_srun_on_one_node_need_no_address_but_on_several_they_do) {
  Variables open_mpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                        {"OMPI_COMM_WORLD_SIZE", "2"},
                        {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                        {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  EXPECT_EQ(launch(open_mpi)->launcher, "Open MPI");
  EXPECT_EQ(launch(open_mpi)->rendezvous.master_address, "127.0.0.1");
  open_mpi.insert_or_assign("OMPI_COMM_WORLD_LOCAL_SIZE", std::string("1"));
  EXPECT_NE(refusal(open_mpi).find("MASTER_ADDR"), std::string::npos);
  Variables slurm = {{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "1"}};
  EXPECT_NE(refusal(slurm).find("MASTER_ADDR"), std::string::npos) << refusal(slurm);
  slurm.insert_or_assign("MASTER_ADDR", std::string("head"));
  EXPECT_EQ(launch(slurm)->rank, 5);
  EXPECT_EQ(launch({{"PMI_RANK", "0"}, {"PMI_SIZE", "3"}, {"MASTER_ADDR", "a"}})->world_size, 3);
}

TEST(ReadLaunch, holes_contradictions_and_nonsense_are_refused_by_name) {
  for (const char* missing : {"RANK", "WORLD_SIZE"}) {
    auto variables = torchrun();
    variables.erase(missing);
    EXPECT_NE(refusal(variables).find(missing), std::string::npos) << missing << ": " << refusal(variables);
  }
  auto wrong = torchrun();
  wrong.insert_or_assign("RANK", std::string("4"));
  EXPECT_NE(refusal(wrong).find("RANK=4 is not below WORLD_SIZE=4"), std::string::npos) << refusal(wrong);
  wrong.insert_or_assign("RANK", std::string("1x"));
  EXPECT_NE(refusal(wrong).find("RANK is '1x'"), std::string::npos) << refusal(wrong);
  auto two = torchrun();
  two.insert({{"PMI_RANK", "0"}, {"PMI_SIZE", "4"}});
  EXPECT_NE(refusal(two).find("torchrun says rank 3 of 4, MPICH says rank 0 of 4"), std::string::npos)
      << refusal(two);
  two.insert_or_assign("PMI_RANK", std::string("3"));
  EXPECT_EQ(refusal(two), "") << "two launchers may agree";
}

}  // namespace
}  // namespace conclave::comm
