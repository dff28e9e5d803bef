// SPDX-License-Identifier: Apache-2.0
#include "conclave/comm/mesh.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "conclave/core/error.h"

namespace conclave::comm {
namespace {

using Groups = std::vector<std::vector<int>>;
constexpr Axis kAxes[] = {Axis::kTensor,       Axis::kContext, Axis::kData,      Axis::kPipeline,
                          Axis::kExpertTensor, Axis::kExpert,  Axis::kExpertData};

// body(mesh, sizes) for every legal mesh of up to 64 ranks.
template <class Body>
void for_every_mesh(Body body) {
  for (int world = 1; world <= 64; ++world) {
    for (int pp = 1; pp <= world; ++pp) {
      if (world % pp != 0) continue;
      const int stage = world / pp;
      for (int tp = 1; tp <= stage; ++tp) {
        for (int cp = 1; stage % tp == 0 && cp <= stage / tp; ++cp) {
          for (int etp = 1; stage / tp % cp == 0 && etp <= stage; ++etp) {
            for (int ep = 1; stage % etp == 0 && ep <= stage / etp; ++ep) {
              if (stage / etp % ep != 0) continue;
              const MeshSizes sizes{
                  .tensor = tp, .context = cp, .pipeline = pp, .expert_tensor = etp, .expert = ep};
              body(Mesh(world, sizes), sizes);
            }
          }
        }
      }
    }
  }
}

TEST(Mesh, a_rank_is_the_formula_of_its_coordinates_in_both_meshes) {
  for_every_mesh([](const Mesh& m, const MeshSizes& s) {
    const int dp = m.size(Axis::kData), edp = m.size(Axis::kExpertData);
    ASSERT_EQ(s.tensor * s.context * dp * s.pipeline, m.world_size());
    ASSERT_EQ(s.expert_tensor * s.expert * edp * s.pipeline, m.world_size());
    for (int rank = 0; rank < m.world_size(); ++rank) {
      const auto at = [&](Axis axis) { return m.coordinate(rank, axis); };
      const int pp = at(Axis::kPipeline);
      ASSERT_EQ(((pp * dp + at(Axis::kData)) * s.context + at(Axis::kContext)) * s.tensor + at(Axis::kTensor),
                rank);
      ASSERT_EQ(((pp * edp + at(Axis::kExpertData)) * s.expert + at(Axis::kExpert)) * s.expert_tensor +
                    at(Axis::kExpertTensor),
                rank);
    }
  });
}

TEST(Mesh, the_groups_of_every_axis_are_a_partition_and_members_stand_at_their_coordinate) {
  for_every_mesh([](const Mesh& m, const MeshSizes&) {
    for (const Axis axis : kAxes) {
      std::set<int> seen;
      for (const auto& group : m.groups(axis)) {
        ASSERT_EQ(static_cast<int>(group.size()), m.size(axis));
        ASSERT_TRUE(std::is_sorted(group.begin(), group.end()));
        for (int i = 0; i < m.size(axis); ++i) {
          const int rank = group[static_cast<size_t>(i)];
          ASSERT_TRUE(seen.insert(rank).second);
          ASSERT_EQ(m.coordinate(rank, axis), i);
          ASSERT_EQ(m.group(rank, axis), group);
        }
      }
      ASSERT_EQ(static_cast<int>(seen.size()), m.world_size());
    }
  });
}

TEST(Mesh, known_examples) {
  const Mesh a(4, {.tensor = 2, .expert = 2});
  EXPECT_EQ(a.groups(Axis::kTensor), (Groups{{0, 1}, {2, 3}}));
  EXPECT_EQ(a.groups(Axis::kData), (Groups{{0, 2}, {1, 3}}));
  EXPECT_EQ(a.groups(Axis::kExpert), (Groups{{0, 1}, {2, 3}}));
  EXPECT_EQ(a.groups(Axis::kExpertData), (Groups{{0, 2}, {1, 3}}));
  const Mesh b(4, {.tensor = 2, .expert_tensor = 2, .expert = 2});
  EXPECT_EQ(b.groups(Axis::kExpertTensor), (Groups{{0, 1}, {2, 3}}));
  EXPECT_EQ(b.groups(Axis::kExpert), (Groups{{0, 2}, {1, 3}}));
  EXPECT_EQ(b.size(Axis::kExpertData), 1);
  const Mesh c(8, {.tensor = 2, .expert_tensor = 2, .expert = 2});
  EXPECT_EQ(c.groups(Axis::kExpert), (Groups{{0, 2}, {1, 3}, {4, 6}, {5, 7}}));
  EXPECT_EQ(c.groups(Axis::kExpertData), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
}

TEST(Mesh, sizes_that_do_not_divide_are_refused_with_the_nearest_that_do) {
  const auto message = [](int world, const MeshSizes& sizes) -> std::string {
    try {
      const Mesh mesh(world, sizes);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const auto expert = message(12, {.expert = 5});
  EXPECT_NE(expert.find("expert_parallel_size = 5"), std::string::npos) << expert;
  EXPECT_NE(expert.find("nearest: 4 or 6"), std::string::npos) << expert;
  EXPECT_NE(message(6, {.expert = 7}).find("nearest: 6"), std::string::npos);
  EXPECT_NE(message(6, {.tensor = 0}).find("must be 1 or more"), std::string::npos);
}

}  // namespace
}  // namespace conclave::comm
