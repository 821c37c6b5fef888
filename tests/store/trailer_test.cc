// Goal: an object can be found again by its trailer alone, and no other bytes pass for one. Method: golden places,
// round trips around the unit's borders, every field broken with its hash made right again, and copies at a wrong
// address.

#include "store/trailer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr Uuid kStore = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6};

struct Sample {
  std::string record;
  std::string name = "layers.0.weight";
  std::vector<uint64_t> sums;

  Sample(size_t record_bytes, size_t sums_count) : record(record_bytes, 'r'), sums(sums_count) {
    std::iota(sums.begin(), sums.end(), uint64_t{1} << 60);
  }
  std::vector<std::byte> Encode() const {
    std::vector<std::byte> bytes(TrailerUnits(record.size(), name.size(), sums.size()) * kUnitBytes, std::byte{0xee});
    EncodeTrailer({kStore, 0x123456789, 5, 777, BytesOf(record), BytesOf(name), sums}, bytes);
    return bytes;
  }
};

absl::StatusOr<Trailer> Decode(std::span<const std::byte> bytes) { return DecodeTrailer(bytes, kStore, 5, 777); }

TEST(Trailer, BytesAreWhereTheFormatSays) {
  const Sample sample(100, 3);
  const std::vector<std::byte> bytes = sample.Encode();
  ASSERT_EQ(bytes.size(), 4096u);
  const auto u32 = [&](size_t at) { return LoadLittle<uint32_t>(bytes.data() + at); };
  const auto u64 = [&](size_t at) { return LoadLittle<uint64_t>(bytes.data() + at); };
  EXPECT_EQ(std::memcmp(bytes.data(), "TSHTRAIL", 8), 0);
  EXPECT_EQ(u32(8), 1u);
  EXPECT_EQ(u32(12), 1u);
  EXPECT_EQ(u64(16), 0x0203040506070809u);
  EXPECT_EQ(u64(32), 0x123456789u);
  EXPECT_EQ(u32(40), 5u);
  EXPECT_EQ(u32(44), sample.name.size());
  EXPECT_EQ(u64(48), 777u);
  EXPECT_EQ(u32(56), 100u);
  EXPECT_EQ(u32(60), 0u);
  EXPECT_EQ(u64(64), 3u);
  EXPECT_EQ(u64(72), Hash64(std::span(bytes).first(72)));
  EXPECT_EQ(std::memcmp(bytes.data() + 180, "layers.0.weight", 15), 0);
  EXPECT_EQ(u64(195), uint64_t{1} << 60);
  EXPECT_EQ(u64(4000), 0u);  // the padding is zeros, not what was in memory
  EXPECT_EQ(u64(4088), Hash64(std::span(bytes).first(4088)));
}

TEST(Trailer, RoundTripAroundTheBordersOfAUnit) {
  // 80 + record + 15 + 8 * sums + 8 bytes: 4096 exactly for a record of 3993 bytes and none.
  EXPECT_EQ(TrailerUnits(3993, 15, 0), 1u);
  EXPECT_EQ(TrailerUnits(3994, 15, 0), 2u);
  for (const size_t record_bytes : {1u, 3992u, 3993u, 3994u, 8089u, 8090u}) {
    for (const size_t sums_count : {0u, 1u, 64u, 16384u}) {
      const Sample sample(record_bytes, sums_count);
      const std::vector<std::byte> bytes = sample.Encode();
      EXPECT_TRUE(LooksLikeTrailer(bytes));
      ASSERT_OK_AND_ASSIGN(const TrailerHeader header, DecodeTrailerHeader(std::span(bytes).first(80)));
      EXPECT_EQ(header.total_units * kUnitBytes, bytes.size());
      ASSERT_OK_AND_ASSIGN(const Trailer trailer, Decode(bytes));
      EXPECT_EQ(trailer.record, sample.record);
      EXPECT_EQ(trailer.name, sample.name);
      EXPECT_EQ(trailer.sums, sample.sums);
      EXPECT_EQ(trailer.header.generation, 0x123456789u);
    }
  }
}

TEST(Trailer, EachBrokenFieldIsNamed) {
  const std::vector<std::byte> good = Sample(100, 3).Encode();
  const auto broken = [&](size_t at, auto value) {
    std::vector<std::byte> bytes = good;
    StoreLittle(bytes.data() + at, value);
    StoreLittle(bytes.data() + 72, Hash64(std::span(bytes).first(72)));
    StoreLittle(bytes.data() + 4088, Hash64(std::span(bytes).first(4088)));
    return Decode(bytes).status();
  };
  const auto loss = absl::StatusCode::kDataLoss;
  EXPECT_FAILS(broken(0, uint8_t{0}), loss, "magic");
  EXPECT_FAILS(broken(8, uint32_t{3}), loss, "version is 3");
  EXPECT_FAILS(broken(12, uint32_t{2}), loss, "total_units is 2, the lengths need 1");
  EXPECT_FAILS(broken(12, uint32_t{0}), loss, "total_units is 0");
  EXPECT_FAILS(broken(12, ~uint32_t{0}), loss, "total_units is 4294967295, over");
  EXPECT_FAILS(broken(16, uint8_t{1}), loss, "store_uuid");
  EXPECT_FAILS(broken(40, uint32_t{6}), loss, "written for unit 777 of 6");
  EXPECT_FAILS(broken(48, uint64_t{778}), loss, "written for unit 778 of 5");
  EXPECT_FAILS(broken(44, uint32_t{4097}), loss, "name_len is 4097");
  EXPECT_FAILS(broken(56, ~uint32_t{0}), loss, "total_units is 1, the lengths need");
  EXPECT_FAILS(broken(64, ~uint64_t{0}), loss, "sums_count");
  EXPECT_FAILS(broken(64, (~uint64_t{0} >> 3) + 1), loss, "sums_count");  // times 8 wraps to 0
  EXPECT_FAILS(Decode(std::span(good).first(4095)), loss, "only 4095 of 4096");
  EXPECT_FAILS(Decode(std::span(good).first(79)), loss, "only 79 of 80");
}

TEST(Trailer, EveryFlippedBitIsFound) {
  std::vector<std::byte> bytes = Sample(100, 600).Encode();
  for (size_t at = 0; at < bytes.size(); at += 13) {
    bytes[at] ^= std::byte{0x10};
    EXPECT_FAILS(Decode(bytes), absl::StatusCode::kDataLoss, "trailer: ") << "byte " << at;
    bytes[at] ^= std::byte{0x10};
  }
  EXPECT_OK(Decode(bytes));
}

TEST(Trailer, ACopyElsewhereIsRefused) {
  const std::vector<std::byte> bytes = Sample(100, 3).Encode();
  EXPECT_FAILS(DecodeTrailer(bytes, kStore, 5, 778), absl::StatusCode::kDataLoss, "found at unit 778");
  EXPECT_FAILS(DecodeTrailer(bytes, kStore, 4, 777), absl::StatusCode::kDataLoss, "data file 4");
  EXPECT_FAILS(DecodeTrailer(bytes, Uuid{}, 5, 777), absl::StatusCode::kDataLoss, "another store");
}

}  // namespace
}  // namespace tensorshelf
