// Goal: no header, however broken, crashes the parser or is accepted without its tensors covering the data exactly.
// Method: 20 000 seeded mutations of valid headers; what is accepted is checked against an independent walk.

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/testing/scale.h"
#include "tools/safetensors/header.h"
#include "tools/safetensors/rules.h"

namespace tensorshelf::safetensors {
namespace {

constexpr uint32_t kSeed = 20260501;
constexpr uint64_t kRounds = 20000;

std::string ValidHeader(std::mt19937& random, uint64_t* data_bytes) {
  std::vector<TensorEntry> tensors;
  const size_t count = random() % 6;
  for (size_t i = 0; i < count; ++i) {
    const std::span<const FileDtype> dtypes = AllFileDtypes();
    TensorEntry tensor{absl::StrCat("t.", i), &dtypes[random() % dtypes.size()], {}, 0, 0};
    const size_t dimensions = random() % 4;
    for (size_t d = 0; d < dimensions; ++d) tensor.shape.push_back(random() % 5);
    if (tensor.dtype->bits < 8) tensor.shape.push_back(8);
    tensors.push_back(std::move(tensor));
  }
  std::optional<FileMetadata> metadata;
  if (random() % 2 == 0) metadata = FileMetadata{{"format", "pt"}};
  const std::string bytes = LayOutHeader(tensors, metadata).value();
  *data_bytes = tensors.empty() ? 0 : tensors.back().end;
  return bytes.substr(kLengthBytes);
}

// Flips, removes, repeats or replaces a few pieces, mostly with characters and words that mean something in JSON.
void Mutate(std::mt19937& random, std::string* text) {
  static const std::vector<std::string> kPieces = {"{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   ",",
                                                   ":",
                                                   "\"",
                                                   "0",
                                                   "-",
                                                   "1e9",
                                                   "18446744073709551615",
                                                   "null",
                                                   "\\u0000",
                                                   "F32",
                                                   "__metadata__",
                                                   "shape",
                                                   std::string(1, '\0'),
                                                   "\xff",
                                                   " "};
  const int changes = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < changes && !text->empty(); ++i) {
    const size_t at = random() % text->size();
    const size_t length = std::min<size_t>(1 + random() % 12, text->size() - at);
    switch (random() % 5) {
      case 0:
        (*text)[at] = static_cast<char>(random());
        break;
      case 1:
        text->erase(at, length);
        break;
      case 2:
        text->insert(at, text->substr(at, length));
        break;
      case 3:
        text->insert(at, kPieces[random() % kPieces.size()]);
        break;
      default:
        text->replace(at, 1, kPieces[random() % kPieces.size()]);
        break;
    }
  }
}

// Not how the parser does it: each byte of the data must be covered exactly once.
void ExpectCovered(const Header& header, uint64_t data_bytes) {
  std::vector<int> cover(data_bytes);
  std::map<std::string, int> names;
  for (const TensorEntry& tensor : header.tensors) {
    EXPECT_EQ(++names[tensor.name], 1);
    unsigned __int128 bits = tensor.dtype->bits;
    for (const uint64_t dimension : tensor.shape) bits = dimension == 0 ? 0 : bits * dimension;
    EXPECT_TRUE(bits == static_cast<unsigned __int128>(tensor.end - tensor.begin) * 8);
    for (uint64_t at = tensor.begin; at < tensor.end; ++at) ++cover.at(at);
  }
  for (const int count : cover) EXPECT_EQ(count, 1);
}

TEST(SafetensorsFuzz, AcceptsOnlyHeadersWhoseTensorsCoverTheData) {
  const uint64_t seed = testing::Seed(kSeed), rounds = testing::Scaled(kRounds);
  testing::ReportTried(rounds, seed);
  std::mt19937 random(static_cast<uint32_t>(seed));
  uint64_t accepted = 0, refused = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    uint64_t data_bytes = 0;
    std::string json = ValidHeader(random, &data_bytes);
    if (random() % 16 == 0) data_bytes += random() % 3;
    const std::string original = json;
    Mutate(random, &json);
    const absl::StatusOr<Header> header = ParseHeader(json, data_bytes);
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", round ", round));
    if (header.ok()) {
      ++accepted;
      ExpectCovered(*header, data_bytes);
    } else {
      ++refused;
      ASSERT_NE(RuleOf(header.status()), "") << header.status();
    }
  }
  // Both happen often, or the mutations test nothing.
  EXPECT_GT(accepted, rounds / 50);
  EXPECT_GT(refused, rounds / 2);
}

TEST(SafetensorsFuzz, RefusesEveryProperPrefix) {
  std::mt19937 random(kSeed);
  for (int round = 0; round < 50; ++round) {
    uint64_t data_bytes = 0;
    const std::string json = ValidHeader(random, &data_bytes);
    const size_t end = json.find_last_not_of(' ');
    for (size_t length = 0; length <= end; ++length) {
      EXPECT_FALSE(ParseHeader(json.substr(0, length), data_bytes).ok()) << "round " << round << ", length " << length;
    }
    if (data_bytes > 0) {
      EXPECT_EQ(RuleOf(ParseHeader(json, data_bytes - 1).status()), "R21");
    }
  }
}

}  // namespace
}  // namespace tensorshelf::safetensors
