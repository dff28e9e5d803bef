// SPDX-License-Identifier: Apache-2.0
#include "permute.h"

#include "device_array.h"

namespace conclave::kernels {
namespace {

struct RowShape {
  int64_t units, width;
  size_t shift = 0;
};
const std::vector<RowShape> kRowShapes = {{0, 8},    {1, 1},     {3, 0},    {32, 24},  {5, 2880},  {7, 301},
                                          {257, 41}, {1009, 40}, {3, 4099}, {9, 4096}, {9, 512, 1}};

template <class T>
class PermuteTest : public DeviceTest {};
TYPED_TEST_SUITE(PermuteTest, Storage);

TYPED_TEST(PermuteTest, rows_go_to_all_their_places_and_their_weighted_sums_come_back) {
  using T = TypeParam;
  for (const auto& [units, width, shift] : kRowShapes) {
    SCOPED_TRACE(testing::Message() << units << " x " << width << " + " << shift);
    const auto pairs = random_pairs(units, 6, 1);
    const auto size = [width = width](int64_t rows) { return static_cast<size_t>(rows * width); };
    const auto x = random_values<T>(size(units), 2);
    const auto weight = random_values<wide_t<T>>(pairs.unit.size(), 3);
    const DeviceArray<T> x_d(x, shift), rows_d(size(pairs.rows), 0xff, shift);
    const DeviceArray<int32_t> offsets_d(pairs.offsets), row_of_d(pairs.row_of);
    const DeviceArray<wide_t<T>> weight_d(weight);
    expect_ok(cuda::permute_rows<T>(x_d.data(), offsets_d.data(), row_of_d.data(), rows_d.data(), width,
                                    units, nullptr));
    std::vector<T> rows(size(pairs.rows));
    permute_rows_ref<T>(x.data(), pairs.offsets.data(), pairs.row_of.data(), rows.data(), width, 0, units);
    expect_close(rows_d.host(), rows);

    const DeviceArray<T> y_d(random_values<T>(rows.size(), 4), shift), out_d(size(units), 0xff, shift);
    for (const bool weighted : {false, true}) {
      expect_ok(cuda::sum_rows<T, T>(y_d.data(), offsets_d.data(), row_of_d.data(),
                                     weighted ? weight_d.data() : nullptr, out_d.data(), width, units,
                                     nullptr));
      std::vector<T> out(size(units));
      sum_rows_ref<T, T>(y_d.host().data(), pairs.offsets.data(), pairs.row_of.data(),
                         weighted ? weight.data() : nullptr, out.data(), width, 0, units);
      expect_close(out_d.host(), out);
    }
  }
}

TYPED_TEST(PermuteTest, the_gradient_of_a_weighted_sum) {
  using T = TypeParam;
  for (const auto& [units, width, shift] : kRowShapes) {
    SCOPED_TRACE(testing::Message() << units << " x " << width << " + " << shift);
    const auto pairs = random_pairs(units, 6, 5);
    const auto num_pairs = static_cast<int64_t>(pairs.unit.size());
    const auto d_out = random_values<T>(static_cast<size_t>(units * width), 6);
    const auto y = random_values<T>(static_cast<size_t>(pairs.rows * width), 7);
    auto weight = random_values<wide_t<T>>(pairs.unit.size(), 8);
    if (!weight.empty()) weight[0] = 0;  // its gradient is not zero
    const DeviceArray<T> d_out_d(d_out, shift), y_d(y, shift), d_rows_d(y.size(), 0xff, shift);
    const DeviceArray<int32_t> unit_d(pairs.unit), row_of_d(pairs.row_of);
    const DeviceArray<wide_t<T>> weight_d(weight), d_weight_d(weight.size());
    expect_ok(cuda::combine_backward<T>(d_out_d.data(), y_d.data(), unit_d.data(), row_of_d.data(),
                                        weight_d.data(), d_rows_d.data(), d_weight_d.data(), width, num_pairs,
                                        nullptr));
    std::vector<T> d_rows(y.size());
    std::vector<wide_t<T>> d_weight(weight.size());
    combine_backward_ref<T>(d_out.data(), y.data(), pairs.unit.data(), pairs.row_of.data(), weight.data(),
                            d_rows.data(), d_weight.data(), width, 0, num_pairs);
    expect_close(d_rows_d.host(), d_rows);
    expect_close(d_weight_d.host(), d_weight);
  }
}

template <class In, class Out>
void check_moves() {
  for (const auto& [units, width, shift] : kRowShapes) {
    SCOPED_TRACE(testing::Message() << units << " x " << width << " + " << shift);
    const auto size = static_cast<size_t>(units * width);
    const auto source = random_values<In>(size, 1);
    std::mt19937 engine(3);
    std::vector<int32_t> index(static_cast<size_t>(units));
    for (auto& i : index) i = static_cast<int32_t>(engine() % static_cast<unsigned>(units));
    const DeviceArray<In> source_d(source, shift);
    const DeviceArray<int32_t> index_d(index);
    const DeviceArray<Out> gathered_d(size, 0xff, shift);
    expect_ok(cuda::gather_rows<In, Out>(source_d.data(), index_d.data(), gathered_d.data(), width, units,
                                         nullptr));
    std::vector<Out> gathered(size);
    gather_rows_ref<In, Out>(source.data(), index.data(), gathered.data(), width, 0, units);
    expect_close(gathered_d.host(), gathered);
  }
}

class MoveTest : public DeviceTest {};
TEST_F(MoveTest, rows_are_gathered_between_all_types) {
  check_moves<float, float>();
  check_moves<double, double>();
  check_moves<bfloat16, bfloat16>();
  check_moves<bfloat16, float>();
  check_moves<float, bfloat16>();
}

// Rows behind the 2^31st value. The memory is reserved, and only the pages of these rows are touched.
TEST_F(MoveTest, rows_beyond_two_to_the_31st_value) {
  constexpr int64_t kWidth = 8192, kRows = 262144 + 3;
  bfloat16* source = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&source), kRows * kWidth * sizeof(bfloat16)), cudaSuccess);
  const std::vector<int32_t> index{kRows - 1, 262144}, offsets{0, 2};
  const std::vector<bfloat16> rows[] = {random_values<bfloat16>(kWidth, 1),
                                        random_values<bfloat16>(kWidth, 2)};
  const DeviceArray<int32_t> index_d(index), offsets_d(offsets);
  const DeviceArray<bfloat16> x_d(rows[0]), two_d(2 * kWidth), sum_d(kWidth);
  for (const size_t i : {0, 1}) {
    expect_ok(cudaMemcpy(source + index[i] * kWidth, rows[i].data(), kWidth * sizeof(bfloat16),
                         cudaMemcpyHostToDevice));
  }
  expect_ok(cuda::gather_rows<bfloat16, bfloat16>(source, index_d.data(), two_d.data(), kWidth, 2, nullptr));
  auto both = rows[0];
  both.insert(both.end(), rows[1].begin(), rows[1].end());
  expect_close(two_d.host(), both);
  expect_ok(cuda::sum_rows<bfloat16, bfloat16>(source, offsets_d.data(), index_d.data(), nullptr,
                                               sum_d.data(), kWidth, 1, nullptr));
  std::vector<bfloat16> sum(kWidth);
  for (size_t i = 0; i < kWidth; ++i) store(sum[i], load(rows[0][i]) + load(rows[1][i]));
  expect_close(sum_d.host(), sum);
  expect_ok(
      cuda::permute_rows<bfloat16>(x_d.data(), offsets_d.data(), index_d.data(), source, kWidth, 1, nullptr));
  expect_ok(cuda::gather_rows<bfloat16, bfloat16>(source, index_d.data(), two_d.data(), kWidth, 2, nullptr));
  both = rows[0];
  both.insert(both.end(), rows[0].begin(), rows[0].end());
  expect_close(two_d.host(), both);
  expect_ok(cudaFree(source));
}

}  // namespace
}  // namespace conclave::kernels
