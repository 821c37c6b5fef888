// Goal: no text in place of a pattern, a .npy header or a shard index makes a parser of the tool crash, loop or lie.
// Method: valid texts mutated by a seed; patterns are compared with a matcher that is slow and obvious.

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/dtype.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"
#include "tools/cli/glob.h"
#include "tools/npy/npy_header.h"
#include "tools/safetensors/shard_index.h"

namespace tensorshelf::cli {
namespace {

class ParserFuzz : public ::testing::Test {
 protected:
  ~ParserFuzz() override { testing::ReportTried(rounds_, seed_); }

  std::string Mutated(std::string text) {
    for (uint64_t n = 1 + random_() % 4; n > 0 && !text.empty(); --n) {
      const size_t at = random_() % text.size();
      switch (random_() % 4) {
        case 0:
          text[at] = static_cast<char>(random_());
          break;
        case 1:
          text.erase(at, 1 + random_() % 8);
          break;
        case 2:
          text.insert(at, text.substr(random_() % text.size(), random_() % 12));
          break;
        default:
          text[at] = "[]{}(),:'\"\\0919*?"[random_() % 17];
      }
    }
    return text;
  }
  std::string Where(uint64_t round) const { return absl::StrCat("seed ", seed_, ", round ", round); }

  const uint64_t seed_ = testing::Seed(20261002);
  const uint64_t rounds_ = testing::Scaled(20000);
  std::mt19937_64 random_{seed_};
};

TEST_F(ParserFuzz, PatternsWithoutClasses) {
  // '*' and '?' alone; every split of the name is tried.
  const std::function<bool(const std::string&, size_t, const std::string&, size_t)> slow =
      [&](const std::string& pattern, size_t p, const std::string& name, size_t n) -> bool {
    if (p == pattern.size()) return n == name.size();
    if (pattern[p] == '*') return slow(pattern, p + 1, name, n) || (n < name.size() && slow(pattern, p, name, n + 1));
    return n < name.size() && (pattern[p] == '?' || pattern[p] == name[n]) && slow(pattern, p + 1, name, n + 1);
  };
  uint64_t matched = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    std::string pattern, name;
    for (uint64_t i = random_() % 8; i > 0; --i) pattern += "ab/*?"[random_() % 5];
    for (uint64_t i = random_() % 8; i > 0; --i) name += "ab/"[random_() % 3];
    const bool matches = MatchesPattern(pattern, name);
    ASSERT_EQ(matches, slow(pattern, 0, name, 0)) << pattern << " on " << name << ", " << Where(round);
    if (matches) {
      ++matched;
      ASSERT_EQ(name.rfind(LiteralPrefix(pattern), 0), 0u) << pattern << " on " << name << ", " << Where(round);
    }
  }
  EXPECT_GT(matched, rounds_ / 100);
}

TEST_F(ParserFuzz, AnyPattern) {
  for (uint64_t round = 0; round < rounds_; ++round) {
    const std::string pattern = Mutated("layers.[0-9]*.{weight,bias}?[!ab]\\*");
    const std::string name = Mutated("layers.0.attention.weight");
    IsPattern(pattern);
    if (MatchesPattern(pattern, name)) {
      ASSERT_EQ(name.rfind(LiteralPrefix(pattern), 0), 0u) << pattern << " on " << name << ", " << Where(round);
    }
  }
}

TEST_F(ParserFuzz, NpyHeaders) {
  ASSERT_OK_AND_ASSIGN(const std::string valid, npy::FormatNpyHeader(FindDtypeByName("float32")->number, {3, 4, 5}));
  uint64_t accepted = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    const std::string text = Mutated(valid);
    const uint64_t file_bytes = text.size() + 240;
    const auto header = npy::ParseNpyHeader(text, file_bytes);
    if (!header.ok()) continue;
    ++accepted;
    ASSERT_LE(header->data_offset, file_bytes) << Where(round);
    ASSERT_LE(header->data_bytes, file_bytes - header->data_offset) << Where(round);
  }
  EXPECT_LT(accepted, rounds_);
}

TEST_F(ParserFuzz, ShardIndexes) {
  const std::string valid = safetensors::FormatShardIndex(
      {.weight_map = {{"a.weight", "model-00001-of-00002.safetensors"}, {"b", "model-00002-of-00002.safetensors"}}},
      1234);
  uint64_t accepted = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    const auto index = safetensors::ParseShardIndex(Mutated(valid));
    if (!index.ok()) continue;
    ++accepted;
    for (const auto& [name, file] : index->weight_map) {
      ASSERT_EQ(file.find('/'), std::string::npos) << Where(round);
      ASSERT_NE(file, "..") << Where(round);
    }
  }
  EXPECT_GT(accepted, 0u);
  EXPECT_LT(accepted, rounds_);
}

}  // namespace
}  // namespace tensorshelf::cli
