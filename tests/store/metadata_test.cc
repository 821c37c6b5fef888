// Goal: user metadata has one byte form, and hostile bytes are refused. Method: golden bytes, the limit exactly, every
// cut of a good form, and lengths that lie.

#include "store/metadata.h"

#include <gtest/gtest.h>

#include "engine/foundation/little_endian.h"
#include "index/record.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

absl::StatusOr<Metadata> Decode(const std::string& bytes) { return DecodeMetadata(BytesOf(bytes)); }

std::string Number(uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); }

TEST(Metadata, GoldenBytes) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes, EncodeMetadata({{"step", "100"}, {"a", ""}}));
  EXPECT_EQ(bytes, Number(2) + Number(1) + "a" + Number(0) + Number(4) + "step" + Number(3) + "100");
  ASSERT_OK_AND_ASSIGN(const Metadata decoded, Decode(bytes));
  EXPECT_EQ(decoded, (Metadata{{"a", ""}, {"step", "100"}}));
}

TEST(Metadata, NoneIsNoBytes) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes, EncodeMetadata({}));
  EXPECT_EQ(bytes, "");
  ASSERT_OK_AND_ASSIGN(const Metadata decoded, Decode(""));
  EXPECT_TRUE(decoded.empty());
  ASSERT_OK_AND_ASSIGN(const Metadata counted, Decode(Number(0)));
  EXPECT_TRUE(counted.empty());
}

TEST(Metadata, TheLimitIsOnTheBytes) {
  const std::string value(kMetadataBytesMax - 12 - 1, 'v');
  ASSERT_OK_AND_ASSIGN(const std::string bytes, EncodeMetadata({{"k", value}}));
  EXPECT_EQ(bytes.size(), kMetadataBytesMax);
  EXPECT_FAILS(EncodeMetadata({{"k", value + "v"}}), absl::StatusCode::kInvalidArgument, "takes 65537 bytes");
}

TEST(Metadata, BadBytesAreRefused) {
  const auto loss = absl::StatusCode::kDataLoss;
  ASSERT_OK_AND_ASSIGN(const std::string good, EncodeMetadata({{"a", "1"}, {"b", "2"}}));
  for (size_t length = 1; length < good.size(); ++length) {
    EXPECT_FAILS(Decode(good.substr(0, length)), loss, "metadata: ") << length;
  }
  EXPECT_FAILS(Decode(good + "x"), loss, "1 bytes after");
  EXPECT_FAILS(Decode(Number(~uint32_t{0})), loss, "entry 0 of 4294967295");
  EXPECT_FAILS(Decode(Number(1) + Number(~uint32_t{0}) + "a"), loss, "entry 0");
  const std::string a = Number(1) + "a" + Number(0), b = Number(1) + "b" + Number(0);
  EXPECT_FAILS(Decode(Number(2) + b + a), loss, "entry 1 is not above");
  EXPECT_FAILS(Decode(Number(2) + a + a), loss, "entry 1 is not above");
}

}  // namespace
}  // namespace tensorshelf
