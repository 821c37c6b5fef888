// Goal: every dtype's elements are decoded and printed right, and statistics are those of the values.
// Method: known codes of each small format, round trips of all codes through the text, and a plain loop as the oracle.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#include "store/dtype.h"
#include "tools/cli/element.h"
#include "tools/cli/tensor_stats.h"
#include "tools/cli/tensor_text.h"

namespace tensorshelf::cli {
namespace {

ElementType TypeOf(const char* name) { return FindElementType(FindDtypeByName(name)->number).value(); }

template <typename T>
std::string TextOf(const char* name, T value, uint32_t part = 0) {
  std::array<std::byte, sizeof(T)> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  return ElementText(TypeOf(name), bytes.data(), part);
}

template <typename T>
double ValueOf(const char* name, T value, uint32_t part = 0) {
  std::array<std::byte, sizeof(T)> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  return ElementValue(TypeOf(name), bytes.data(), part);
}

TEST(Element, KnownCodes) {
  EXPECT_EQ(ValueOf("float16", uint16_t{0x3c00}), 1);
  EXPECT_EQ(ValueOf("float16", uint16_t{0x0001}), std::ldexp(1.0, -24));
  EXPECT_EQ(ValueOf("float16", uint16_t{0x7bff}), 65504);
  EXPECT_EQ(ValueOf("float16", uint16_t{0xfc00}), -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(ValueOf("float16", uint16_t{0x7e00})));
  EXPECT_EQ(ValueOf("bfloat16", uint16_t{0xbfc0}), -1.5);
  EXPECT_EQ(ValueOf("float8_e4m3fn", uint8_t{0x7e}), 448);
  EXPECT_TRUE(std::isnan(ValueOf("float8_e4m3fn", uint8_t{0x7f})));
  EXPECT_EQ(ValueOf("float8_e4m3fn", uint8_t{0x01}), std::ldexp(1.0, -9));
  EXPECT_EQ(ValueOf("float8_e5m2", uint8_t{0x7b}), 57344);
  EXPECT_EQ(ValueOf("float8_e5m2", uint8_t{0x7c}), std::numeric_limits<double>::infinity());
  EXPECT_EQ(ValueOf("float8_e4m3fnuz", uint8_t{0x7f}), 240);
  EXPECT_TRUE(std::isnan(ValueOf("float8_e4m3fnuz", uint8_t{0x80})));
  EXPECT_EQ(ValueOf("float8_e5m2fnuz", uint8_t{0x7f}), 57344);
  EXPECT_EQ(ValueOf("float8_e8m0fnu", uint8_t{127}), 1);
  EXPECT_EQ(ValueOf("float8_e8m0fnu", uint8_t{130}), 8);
  EXPECT_TRUE(std::isnan(ValueOf("float8_e8m0fnu", uint8_t{255})));
  // Two to a byte, the low half first: 0.5 and -6.
  EXPECT_EQ(ValueOf("float4_e2m1fn_x2", uint8_t{0xf1}, 0), 0.5);
  EXPECT_EQ(ValueOf("float4_e2m1fn_x2", uint8_t{0xf1}, 1), -6);
  EXPECT_EQ(TextOf("int64", std::numeric_limits<int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(TextOf("uint64", ~uint64_t{0}), "18446744073709551615");
  EXPECT_EQ(TextOf("bool", uint8_t{1}), "True");
  EXPECT_EQ(TextOf("float32", 0.1f), "0.1");
  EXPECT_EQ(TextOf("complex64", std::array<float, 2>{1.5f, -2}), "1.5-2j");
  EXPECT_EQ(ValueOf("complex64", std::array<float, 2>{3, -4}), 5);
  EXPECT_EQ(TextOf("complex128", std::array<double, 2>{0, 1}), "0+1j");
  EXPECT_FALSE(FindElementType(200).has_value());
}

// A text stands for one value of its type: no two codes of different value have the same.
TEST(Element, TextsOfSmallFloatsTellAllValuesApart) {
  for (const char* name : {"float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz",
                           "float8_e8m0fnu"}) {
    const ElementType type = TypeOf(name);
    std::map<std::string, double> seen;
    for (uint32_t code = 0; code < (type.item_bytes == 1 ? 256u : 65536u); ++code) {
      const auto item = static_cast<uint16_t>(code);
      std::byte bytes[2];
      std::memcpy(bytes, &item, 2);
      const double value = ElementValue(type, bytes, 0);
      if (std::isnan(value)) continue;
      const auto [known, is_new] = seen.emplace(ElementText(type, bytes, 0), value);
      ASSERT_TRUE(is_new || known->second == value) << name << " " << known->first;
    }
  }
}

TEST(TensorText, LooksAsInNumPy) {
  const auto render = [](const std::vector<uint64_t>& shape, size_t columns = 75) {
    const TextPlan plan = PlanText(shape);
    std::vector<std::string> texts;
    for (const ElementRun& run : plan.runs) {
      for (uint64_t i = 0; i < run.count; ++i) texts.push_back(std::to_string(run.first + i));
    }
    EXPECT_EQ(texts.size(), plan.shown_count());
    return RenderTensor(plan, texts, columns);
  };
  EXPECT_EQ(render({}), "0");
  EXPECT_EQ(render({0}), "[]");
  EXPECT_EQ(render({3}), "[0 1 2]");
  EXPECT_EQ(render({2, 3}), "[[0 1 2]\n [3 4 5]]");
  EXPECT_EQ(render({2, 1, 2}), "[[[0 1]]\n\n [[2 3]]]");
  EXPECT_EQ(render({2000}), "[   0    1    2 ... 1997 1998 1999]");
  EXPECT_EQ(render({100, 20}),
            "[[   0    1    2 ...   17   18   19]\n [  20   21   22 ...   37   38   39]\n"
            " [  40   41   42 ...   57   58   59]\n ...\n [1940 1941 1942 ... 1957 1958 1959]\n"
            " [1960 1961 1962 ... 1977 1978 1979]\n [1980 1981 1982 ... 1997 1998 1999]]");
  EXPECT_EQ(render({12}, 20), "[ 0  1  2  3  4  5\n  6  7  8  9 10 11]");
  // Twenty dimensions of two: a million elements, none of which NumPy would leave out.
  EXPECT_EQ(render(std::vector<uint64_t>(20, 2)), "[      0       1       2 ... 1048573 1048574 1048575]");
}

struct Oracle {
  uint64_t nan = 0, zeros = 0, finite = 0;
  double min = INFINITY, max = -INFINITY, sum = 0, squares = 0;
};

template <typename T>
void CheckStats(const char* name, const std::vector<T>& values) {
  const ElementType type = TypeOf(name);
  Oracle oracle;
  for (int pass = 0; pass < 2; ++pass) {
    for (const T& item : values) {
      const double value = ValueOf(name, item);
      if (std::isnan(value)) {
        oracle.nan += pass;
      } else if (std::isfinite(value)) {
        if (pass == 0) {
          ++oracle.finite;
          oracle.sum += value;
          oracle.min = std::min(oracle.min, value);
          oracle.max = std::max(oracle.max, value);
          oracle.zeros += value == 0 ? 1 : 0;
        } else {
          const double mean = oracle.sum / static_cast<double>(oracle.finite);
          oracle.squares += (value - mean) * (value - mean);
        }
      }
    }
  }
  const auto collector = NewStatsCollector(type);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(values));
  const size_t half = values.size() / 2 * sizeof(T);
  collector->First(bytes.first(half));
  collector->First(bytes.subspan(half));
  if (collector->needs_second()) {
    collector->Second(bytes.first(half));
    collector->Second(bytes.subspan(half));
  }
  const TensorStats stats = collector->Finish();
  EXPECT_EQ(stats.count, values.size()) << name;
  EXPECT_EQ(stats.nan, oracle.nan) << name;
  EXPECT_EQ(stats.zeros, oracle.zeros) << name;
  EXPECT_EQ(stats.finite, oracle.finite) << name;
  EXPECT_EQ(stats.min, oracle.min) << name;
  EXPECT_EQ(stats.max, oracle.max) << name;
  const double mean = oracle.sum / static_cast<double>(oracle.finite);
  EXPECT_NEAR(stats.mean, mean, std::abs(mean) * 1e-9 + 1e-9) << name;
  const double deviation = std::sqrt(oracle.squares / static_cast<double>(oracle.finite));
  EXPECT_NEAR(stats.deviation, deviation, deviation * 1e-6) << name;
  uint64_t binned = 0;
  for (const uint64_t count : stats.histogram) binned += count;
  EXPECT_EQ(binned, stats.finite) << name;
}

TEST(TensorStats, AgreeWithAPlainLoop) {
  std::mt19937_64 random(11);
  const auto values = [&]<typename T>(T) {
    std::vector<T> drawn(5001);
    for (T& value : drawn) value = static_cast<T>(random());
    drawn[17] = T{};
    return drawn;
  };
  CheckStats("int8", values(int8_t{}));
  CheckStats("uint16", values(uint16_t{}));
  CheckStats("int32", values(int32_t{}));
  CheckStats("uint32", values(uint32_t{}));
  CheckStats("int64", values(int64_t{}));
  CheckStats("uint64", values(uint64_t{}));
  for (const char* name : {"float16", "bfloat16"}) CheckStats(name, values(uint16_t{}));
  for (const char* name : {"float8_e5m2", "float8_e4m3fn", "bool"}) CheckStats(name, values(uint8_t{}));
  std::vector<float> floats(5001);
  std::normal_distribution<float> normal;
  for (float& value : floats) value = normal(random);
  floats[3] = NAN;
  floats[4] = INFINITY;
  floats[5] = 0;
  CheckStats("float32", floats);
}

TEST(TensorStats, ExtremesOfInts64AreExact) {
  const std::vector<int64_t> values = {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max() - 1,
                                       std::numeric_limits<int64_t>::min() + 1};
  const auto collector = NewStatsCollector(TypeOf("int64"));
  collector->First(std::as_bytes(std::span(values)));
  collector->Second(std::as_bytes(std::span(values)));
  const TensorStats stats = collector->Finish();
  EXPECT_EQ(stats.max_text, "9223372036854775807");
  EXPECT_EQ(stats.min_text, "-9223372036854775807");
}

TEST(TensorStats, OnlyNanAndNothing) {
  const std::vector<float> values(3, NAN);
  const auto collector = NewStatsCollector(TypeOf("float32"));
  collector->First(std::as_bytes(std::span(values)));
  EXPECT_FALSE(collector->needs_second());
  EXPECT_EQ(collector->Finish().nan, 3u);
  EXPECT_EQ(NewStatsCollector(TypeOf("float16"))->Finish().count, 0u);
}

}  // namespace
}  // namespace tensorshelf::cli
