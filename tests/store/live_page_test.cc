// Goal: a page of counters is read as it was written, and no bytes make a reader believe anything else.
// Method: a page of distinct numbers goes there and back; then length, magic, version, counts and single bits are
// wrong.

#include "store/live_page.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

LivePage DistinctPage() {
  LivePage page;
  InitialiseLivePage(page);
  page.header.store_uuid[3] = 7;
  page.header.sequence = 5;
  page.header.pid = 4711;
  SetText(page.header.holder, "pid=4711 host=here");
  page.header.device_count = 2;
  page.gauges.commit = 11;
  page.gauges.bad = 12;
  page.gauges.memory_misses = 13;
  for (size_t i = 0; i < kLiveOperationsMax; ++i) page.operations[i].bytes = 100 + i;
  for (size_t i = 0; i < kLiveDevicesMax; ++i) page.devices[i].write_latency.max_ns = 200 + i;
  return page;
}

absl::Status Decode(const std::string& bytes) { return DecodeLivePage(BytesOf(bytes)).status(); }

// With the hash that fits, as somebody would write it who wants to be believed.
std::string Sealed(LivePage page) { return EncodeLivePage(page); }

TEST(LivePage, ComesBackAsItWas) {
  const LivePage page = DistinctPage();
  const std::string bytes = EncodeLivePage(page);
  ASSERT_EQ(bytes.size(), kLivePageBytes);
  ASSERT_OK_AND_ASSIGN(LivePage back, DecodeLivePage(BytesOf(bytes)));
  back.hash = page.hash;
  EXPECT_EQ(std::memcmp(&back, &page, sizeof page), 0);
  EXPECT_EQ(TextOf(back.header.holder), "pid=4711 host=here");
  EXPECT_EQ(back.used_devices().size(), 2u);
}

// The offsets of the table in live_page.h, read without the struct.
TEST(LivePage, LiesAsItsTableSays) {
  const std::string bytes = EncodeLivePage(DistinctPage());
  const auto number = [&](size_t at) { return LoadLittle<uint64_t>(BytesOf(bytes).data() + at); };
  EXPECT_EQ(bytes.substr(0, 8), "TSHLIVEC");
  EXPECT_EQ(LoadLittle<uint32_t>(BytesOf(bytes).data() + 8), 1u);
  EXPECT_EQ(LoadLittle<uint32_t>(BytesOf(bytes).data() + 20), 2u);
  EXPECT_EQ(bytes[32 + 3], 7);
  EXPECT_EQ(number(48), 5u);
  EXPECT_EQ(LoadLittle<uint32_t>(BytesOf(bytes).data() + 88), 4711u);
  EXPECT_EQ(bytes.substr(96, 18), "pid=4711 host=here");
  EXPECT_EQ(number(512), 11u) << "commit";
  EXPECT_EQ(number(512 + 80), 12u) << "bad, the eleventh";
  EXPECT_EQ(number(1024 + 576 * 3 + 8), 103u) << "bytes of the fourth operation";
  EXPECT_EQ(number(10240 + 1232 * 2 + 704 + 520), 202u) << "slowest write of the third device";
  EXPECT_EQ(number(32760), Hash64(BytesOf(bytes).first(32760)));
}

TEST(LivePage, TextsAreCutNotOverrun) {
  std::array<char, 4> field{};
  SetText(field, "abcdef");
  EXPECT_EQ(TextOf(field), "abcd");
  SetText(field, "x");
  EXPECT_EQ(TextOf(field), "x");
}

TEST(LivePage, WrongLengthsAreRefused) {
  const std::string bytes = EncodeLivePage(DistinctPage());
  for (const size_t length : {size_t{0}, size_t{1}, size_t{511}, size_t{512}, size_t{4096}, kLivePageBytes - 1}) {
    EXPECT_FAILS(Decode(bytes.substr(0, length)), absl::StatusCode::kDataLoss, "bytes") << length;
  }
  EXPECT_FAILS(Decode(bytes + "x"), absl::StatusCode::kDataLoss, "32769 bytes");
}

TEST(LivePage, AnotherVersionIsNotRead) {
  LivePage page = DistinctPage();
  page.header.version = 2;
  EXPECT_FAILS(Decode(Sealed(page)), absl::StatusCode::kFailedPrecondition, "its version is 2");
  EXPECT_FAILS(Decode(Sealed(page).substr(0, 1000)), absl::StatusCode::kFailedPrecondition, "its version is 2");
}

TEST(LivePage, ImpossibleCountsAreRefusedWhateverTheHash) {
  LivePage page = DistinctPage();
  page.header.device_count = 17;
  EXPECT_FAILS(Decode(Sealed(page)), absl::StatusCode::kDataLoss, "17 devices");
  page = DistinctPage();
  page.header.operation_count = UINT32_MAX;
  EXPECT_FAILS(Decode(Sealed(page)), absl::StatusCode::kDataLoss, "operations");
  page = DistinctPage();
  page.header.bucket_count = 63;
  EXPECT_FAILS(Decode(Sealed(page)), absl::StatusCode::kDataLoss, "63 buckets");
}

TEST(LivePage, EveryFlippedBitIsNoticed) {
  const std::string bytes = EncodeLivePage(DistinctPage());
  std::mt19937 random(4);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = bytes;
    const size_t bit = random() % (bytes.size() * 8);
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(Decode(damaged).ok()) << "bit " << bit;
  }
}

TEST(LivePage, GarbageIsRefused) {
  std::mt19937 random(5);
  std::string bytes(kLivePageBytes, '\0');
  EXPECT_FAILS(Decode(bytes), absl::StatusCode::kDataLoss, "does not begin");
  for (int i = 0; i < 20; ++i) {
    for (char& byte : bytes) byte = static_cast<char>(random());
    EXPECT_FALSE(Decode(bytes).ok());
  }
}

}  // namespace
}  // namespace tensorshelf
