// Goal: a freemap that is believed is the one that was written, and is consistent in itself. Method: round trip, every
// byte damaged, and fields that lie under a right hash.

#include "store/freemap.h"

#include <gtest/gtest.h>

#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr size_t kHeaderBytes = 80;  // magic .. orphan_count; then the first file

Freemap SomeFreemap() {
  Freemap freemap;
  freemap.store_uuid = {1, 2, 3};
  freemap.epoch = 12;
  freemap.commit = 3456;
  freemap.name_count = 99;
  freemap.object_count = 77;
  Freemap::FileMap first;
  first.file = {1, 256, 1256};
  first.free = {{256, 100}, {400, 50}, {1255, 1}};
  first.counters[SpaceState::kFree] = 151;
  first.counters[SpaceState::kLive] = 840;
  first.counters[SpaceState::kBad] = 9;
  Freemap::FileMap full;
  full.file = {4, 256, 300};
  full.counters[SpaceState::kLive] = 44;
  freemap.files = {first, full};
  freemap.shared = {{500, 2}, {501, 1000}};
  freemap.orphans = {3, 70000};
  return freemap;
}

// The bytes with a number changed and the hash made right again.
absl::Status Broken(size_t at, uint64_t value) {
  std::string bytes = EncodeFreemap(SomeFreemap());
  StoreLittle(reinterpret_cast<std::byte*>(bytes.data()) + at, value);
  const uint64_t hash = Hash64(BytesOf(bytes).first(bytes.size() - 8));
  StoreLittle(reinterpret_cast<std::byte*>(bytes.data()) + bytes.size() - 8, hash);
  return DecodeFreemap(bytes).status();
}

TEST(Freemap, RoundTrip) {
  ASSERT_OK_AND_ASSIGN(const Freemap decoded, DecodeFreemap(EncodeFreemap(SomeFreemap())));
  EXPECT_EQ(decoded, SomeFreemap());
  ASSERT_OK_AND_ASSIGN(const Freemap empty, DecodeFreemap(EncodeFreemap(Freemap())));
  EXPECT_EQ(empty, Freemap());
}

TEST(Freemap, CarriesAnAllocatorOver) {
  const SpaceFile files[] = {{1, 256, 10000}};
  ASSERT_OK_AND_ASSIGN(auto allocator, ExtentAllocator::Rebuild(files, {{7, {1, 10, 300}}, {8, {1, 500, 700}}}));
  Freemap freemap;
  freemap.files.push_back({files[0], allocator->totals(), {}});
  for (const Extent& extent : allocator->FreeExtents())
    freemap.files[0].free.push_back({extent.first_unit, extent.units});
  ASSERT_OK_AND_ASSIGN(const Freemap decoded, DecodeFreemap(EncodeFreemap(freemap)));
  std::vector<Extent> free;
  for (const UnitRun& run : decoded.files[0].free) free.push_back({1, static_cast<uint32_t>(run.units), run.first});
  ASSERT_OK_AND_ASSIGN(auto again, ExtentAllocator::FromFreeExtents(files, free));
  EXPECT_EQ(again->FreeExtents(), allocator->FreeExtents());
  EXPECT_EQ(again->totals(), allocator->totals());
}

TEST(Freemap, EveryDamagedByteAndEveryLengthIsFound) {
  const std::string good = EncodeFreemap(SomeFreemap());
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x21);
    EXPECT_FAILS(DecodeFreemap(bytes), absl::StatusCode::kDataLoss, "freemap: ") << "byte " << at;
    EXPECT_FAILS(DecodeFreemap(good.substr(0, at)), absl::StatusCode::kDataLoss, "freemap: ") << "length " << at;
  }
  EXPECT_FAILS(DecodeFreemap(good + "x"), absl::StatusCode::kDataLoss, "hash");
}

TEST(Freemap, LiesUnderARightHashAreFound) {
  const auto loss = absl::StatusCode::kDataLoss;
  constexpr size_t kFile = kHeaderBytes, kCounters = kFile + 24, kRuns = kCounters + 56 + 8;
  EXPECT_FAILS(Broken(64, ~uint64_t{0}), loss, "count");              // shared_count
  EXPECT_FAILS(Broken(72, uint64_t{1} << 61), loss, "count");         // orphan_count
  EXPECT_FAILS(Broken(kCounters + 56, ~uint64_t{0}), loss, "count");  // run_count
  EXPECT_FAILS(Broken(kFile + 16, ~uint64_t{0}), loss, "no data area");
  EXPECT_FAILS(Broken(kFile + 8, uint64_t{5000}), loss, "no data area");
  EXPECT_FAILS(Broken(kFile, uint64_t{9}), loss, "file_id 4");
  EXPECT_FAILS(Broken(kCounters, ~uint64_t{0}), loss, "over the capacity");
  EXPECT_FAILS(Broken(kCounters, uint64_t{1}), loss, "sum to 1001");
  EXPECT_FAILS(Broken(kRuns, uint64_t{255}), loss, "outside the data area");
  EXPECT_FAILS(Broken(kRuns + 8, uint64_t{0}), loss, "empty");
  EXPECT_FAILS(Broken(kRuns + 8, uint64_t{144}), loss, "touches");  // [256, 400) and [400, 450)
  EXPECT_FAILS(Broken(kRuns + 8, uint64_t{101}), loss, "counted as free");
  EXPECT_FAILS(Broken(kRuns + 8, ~uint64_t{0}), loss, "outside the data area");
  const size_t shared = EncodeFreemap(SomeFreemap()).size() - 8 - 2 * 8 - 2 * 16;
  EXPECT_FAILS(Broken(shared + 8, uint64_t{1}), loss, "shared generation 500 with 1 names");
  EXPECT_FAILS(Broken(shared, uint64_t{501}), loss, "shared generation 501");
  EXPECT_FAILS(Broken(shared + 32, uint64_t{80000}), loss, "orphan generation 70000");
}

}  // namespace
}  // namespace tensorshelf
