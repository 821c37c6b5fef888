// Goal: the newest witness is found whatever happens to other slots, and only this file's own count. Method: golden
// places, slots written in turn on the disk in memory, then damaged, misplaced and foreign ones.

#include "store/witness_slot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::CrashPolicy;
using testing::MemoryDisk;
using SlotBytes = std::array<std::byte, kSlotBytes>;

constexpr Uuid kStore = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr char kPath[] = "/00000003.tsd";

WitnessSlot Slot(uint64_t slot_seq) {
  return {.file_id = 3,
          .store_uuid = kStore,
          .slot_seq = slot_seq,
          .epoch = 2 + slot_seq / 10,
          .durable_commit = slot_seq * 100,
          .clean = slot_seq % 5 == 0,
          .filled_until_bytes = slot_seq << 20};
}

class WitnessSlotTest : public ::testing::Test {
 protected:
  WitnessSlotTest() {
    auto file = disk_.Open(kPath, {.writable = true, .create = true});
    EXPECT_OK(file);
    file_ = *std::move(file);
    EXPECT_OK(file_->Allocate(uint64_t{4} << 20));
    EXPECT_OK(file_->Sync());
    EXPECT_OK(disk_.SyncDirectory("/"));
  }
  SlotsReading Read() {
    auto reading = ReadSlots(*file_, kStore, 3);
    EXPECT_OK(reading);
    return reading.ok() ? *reading : SlotsReading();
  }

  MemoryDisk disk_;
  std::unique_ptr<File> file_;
};

TEST(WitnessSlot, BytesAreWhereTheFormatSays) {
  SlotBytes bytes;
  EncodeSlot(Slot(0x1005), bytes);
  const auto u64 = [&](size_t at) { return LoadLittle<uint64_t>(bytes.data() + at); };
  EXPECT_EQ(std::memcmp(bytes.data(), "TSHWITNS", 8), 0);
  EXPECT_EQ(LoadLittle<uint32_t>(bytes.data() + 8), 1u);
  EXPECT_EQ(LoadLittle<uint32_t>(bytes.data() + 12), 3u);
  EXPECT_EQ(u64(16), 0x0807060504030201u);
  EXPECT_EQ(u64(32), 0x1005u);
  EXPECT_EQ(u64(40), Slot(0x1005).epoch);
  EXPECT_EQ(u64(48), 0x1005u * 100);
  EXPECT_EQ(u64(56), 0u);  // not clean, reserved bytes zero
  EXPECT_EQ(u64(64), uint64_t{0x1005} << 20);
  EXPECT_EQ(u64(4088), Hash64(std::span<const std::byte>(bytes).first(4088)));
  EXPECT_EQ(SlotOffset(0x1005), 65536u + 5 * 4096u);
  ASSERT_OK_AND_ASSIGN(const WitnessSlot decoded, DecodeSlot(bytes));
  EXPECT_EQ(decoded, Slot(0x1005));
}

TEST(WitnessSlot, DecodeNamesWhatIsWrong) {
  SlotBytes good;
  EncodeSlot(Slot(5), good);
  const auto loss = absl::StatusCode::kDataLoss;
  SlotBytes bytes = good;
  bytes[0] = std::byte{0};
  EXPECT_FAILS(DecodeSlot(bytes), loss, "magic");
  bytes = good;
  bytes[8] = std::byte{9};
  EXPECT_FAILS(DecodeSlot(bytes), loss, "version is 9");
  for (size_t at = 12; at < kSlotBytes; at += 61) {
    bytes = good;
    bytes[at] ^= std::byte{0x80};
    EXPECT_FAILS(DecodeSlot(bytes), loss, "hash") << "byte " << at;
  }
  EXPECT_FAILS(DecodeSlot(std::span<const std::byte>(good).first(100)), loss, "only 100");
}

TEST_F(WitnessSlotTest, AFreshFileHasNone) {
  const SlotsReading reading = Read();
  EXPECT_FALSE(reading.newest.has_value());
  EXPECT_EQ(reading.empty_count, 16u);
  EXPECT_EQ(reading.damaged_count, 0u);
  EXPECT_EQ(reading.durable_commit_max, 0u);
}

TEST_F(WitnessSlotTest, TheNewestOfManyRounds) {
  for (uint64_t seq = 1; seq <= 37; ++seq) {
    ASSERT_OK(WriteSlot(*file_, Slot(seq)));
    const SlotsReading reading = Read();
    EXPECT_EQ(reading.newest, Slot(seq));
    EXPECT_EQ(reading.valid_count, std::min<uint64_t>(seq, 16));
    EXPECT_EQ(reading.empty_count, 16 - reading.valid_count);
    EXPECT_EQ(reading.durable_commit_max, seq * 100);
  }
}

TEST_F(WitnessSlotTest, MaximaAreOverAllValidSlots) {
  // After an accepted loss the newest slot may witness a lower commit than an older one: numbering goes on above both.
  WitnessSlot older = Slot(1), newer = Slot(2);
  older.durable_commit = 900;
  older.epoch = 9;
  newer.durable_commit = 500;
  newer.epoch = 4;
  ASSERT_OK(WriteSlot(*file_, older));
  ASSERT_OK(WriteSlot(*file_, newer));
  const SlotsReading reading = Read();
  EXPECT_EQ(reading.newest, newer);
  EXPECT_EQ(reading.durable_commit_max, 900u);
  EXPECT_EQ(reading.epoch_max, 9u);
}

TEST_F(WitnessSlotTest, DamageIsCountedAndTheOneBeforeIsUsed) {
  for (uint64_t seq = 1; seq <= 20; ++seq) ASSERT_OK(WriteSlot(*file_, Slot(seq)));
  ASSERT_OK(disk_.FlipBits(kPath, SlotOffset(20) + 48, 1));
  const SlotsReading reading = Read();
  EXPECT_EQ(reading.newest, Slot(19));
  EXPECT_EQ(reading.valid_count, 15u);
  EXPECT_EQ(reading.damaged_count, 1u);
  ASSERT_EQ(reading.damaged.size(), 1u);
  EXPECT_NE(reading.damaged[0].find("slot 4 at 81920: hash"), std::string::npos) << reading.damaged[0];
}

TEST_F(WitnessSlotTest, ForeignAndMisplacedSlotsAreNotBelieved) {
  ASSERT_OK(WriteSlot(*file_, Slot(1)));
  WitnessSlot other_store = Slot(66), other_file = Slot(67);
  other_store.store_uuid[0] ^= 1;
  other_file.file_id = 4;
  ASSERT_OK(WriteSlot(*file_, other_store));
  ASSERT_OK(WriteSlot(*file_, other_file));
  SlotBytes bytes;
  EncodeSlot(Slot(500), bytes);
  ASSERT_OK(WriteExactly(*file_, SlotOffset(500) + kSlotBytes, bytes));
  const SlotsReading reading = Read();
  EXPECT_EQ(reading.newest, Slot(1));
  EXPECT_EQ(reading.damaged_count, 3u);
  EXPECT_EQ(reading.durable_commit_max, 100u);
}

TEST_F(WitnessSlotTest, ATornSlotLeavesTheOneBefore) {
  ASSERT_OK(WriteSlot(*file_, Slot(1)));
  ASSERT_OK(file_->Sync());
  ASSERT_OK(WriteSlot(*file_, Slot(17)));
  for (uint64_t seed = 0; seed < 50; ++seed) {
    auto crashed = disk_.AfterCrash(CrashPolicy::RandomSectors(seed));
    ASSERT_OK_AND_ASSIGN(auto file, crashed->Open(kPath, {}));
    ASSERT_OK_AND_ASSIGN(const SlotsReading reading, ReadSlots(*file, kStore, 3));
    if (reading.newest) {
      EXPECT_TRUE(*reading.newest == Slot(17) || *reading.newest == Slot(1));
    }
    EXPECT_EQ(reading.newest.has_value() + reading.damaged_count, 1u);
  }
}

TEST_F(WitnessSlotTest, AShortFileIsAnError) {
  ASSERT_OK(file_->Truncate(kUnitBytes));
  EXPECT_FAILS(ReadSlots(*file_, kStore, 3), absl::StatusCode::kDataLoss, kPath);
}

}  // namespace
}  // namespace tensorshelf
