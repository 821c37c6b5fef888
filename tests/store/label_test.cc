// Goal: a label survives any one damage, and no hostile label is believed. Method: golden bytes, each field broken with
// the hash made right again, and crashes at every step of a rewrite on the disk in memory.

#include "store/label.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>

#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::CrashPolicy;
using testing::MemoryDisk;
using LabelBytes = std::array<std::byte, kLabelBytes>;

constexpr uint64_t kFileBytes = uint64_t{16} << 20;

Label SomeLabel() {
  Label label;
  label.file_id = 7;
  label.label_seq = 3;
  for (uint8_t i = 0; i < 16; ++i) label.store_uuid[i] = i, label.device_uuid[i] = static_cast<uint8_t>(0xf0 + i);
  label.size = kFileBytes;
  label.data_begin = kDataBegin;
  label.data_end = kFileBytes - kDataTailBytes;
  label.compat = 0x10;
  label.tier_id = 2;
  label.state = LabelState::kActive;
  label.created_ns = 0x0102030405060708;
  label.tier_name = "nvme";
  return label;
}

LabelBytes Encoded(const Label& label) {
  LabelBytes bytes;
  EncodeLabel(label, bytes);
  return bytes;
}

void FixHash(LabelBytes& bytes) {
  StoreLittle(bytes.data() + 4088, Hash64(std::span<const std::byte>(bytes).first(4088)));
}

class LabelFileTest : public ::testing::Test {
 protected:
  LabelFileTest() { Reopen(true); }
  void Reopen(bool create) {
    auto file = disk_.Open("/00000007.tsd", {.writable = true, .create = create});
    ASSERT_OK(file);
    file_ = *std::move(file);
    if (!create) return;
    ASSERT_OK(file_->Allocate(kFileBytes));
    ASSERT_OK(file_->Sync());
    ASSERT_OK(disk_.SyncDirectory("/"));
  }

  MemoryDisk disk_;
  std::unique_ptr<File> file_;
};

TEST(Label, BytesAreWhereTheFormatSays) {
  const LabelBytes bytes = Encoded(SomeLabel());
  const auto u32 = [&](size_t at) { return LoadLittle<uint32_t>(bytes.data() + at); };
  const auto u64 = [&](size_t at) { return LoadLittle<uint64_t>(bytes.data() + at); };
  EXPECT_EQ(std::memcmp(bytes.data(), "TSHLABEL", 8), 0);
  EXPECT_EQ(u32(8), 1u);
  EXPECT_EQ(u32(12), 7u);
  EXPECT_EQ(u64(16), 3u);
  EXPECT_EQ(u64(24), 0x0706050403020100u);
  EXPECT_EQ(u64(40), 0xf7f6f5f4f3f2f1f0u);
  EXPECT_EQ(u64(56), kFileBytes);
  EXPECT_EQ(u64(64), kDataBegin);
  EXPECT_EQ(u64(72), kFileBytes - kDataTailBytes);
  EXPECT_EQ(u64(80), 0x10u);
  EXPECT_EQ(u64(88), 0u);
  EXPECT_EQ(u64(96), 0u);
  EXPECT_EQ(u32(104), 2u);
  EXPECT_EQ(static_cast<int>(bytes[108]), 2);
  EXPECT_EQ(static_cast<int>(bytes[109]), 12);
  EXPECT_EQ(u64(112), 0x0102030405060708u);
  EXPECT_EQ(std::memcmp(bytes.data() + 120, "nvme\0", 5), 0);
  EXPECT_EQ(u64(4088), Hash64(std::span<const std::byte>(bytes).first(4088)));
  // This label's hash, for ever: a change of the encoder that keeps a round trip is caught here.
  EXPECT_EQ(u64(4088), uint64_t{1757255346500483211});
}

TEST(Label, RoundTrip) {
  for (const LabelState state : {LabelState::kJoining, LabelState::kActive, LabelState::kDraining}) {
    Label label = SomeLabel();
    label.state = state;
    label.tier_name = std::string(kTierNameBytesMax, 'x');
    label.incompat = ~uint64_t{0};
    label.ro_compat = 5;
    ASSERT_OK_AND_ASSIGN(const Label decoded, DecodeLabel(Encoded(label)));
    EXPECT_EQ(decoded, label);
  }
}

TEST(Label, EachBrokenFieldIsNamed) {
  const LabelBytes good = Encoded(SomeLabel());
  const auto broken = [&](size_t at, auto value) {
    LabelBytes bytes = good;
    StoreLittle(bytes.data() + at, value);
    FixHash(bytes);
    return DecodeLabel(bytes).status();
  };
  const auto loss = absl::StatusCode::kDataLoss;
  constexpr uint64_t kExabyte = uint64_t{1} << 60;
  EXPECT_FAILS(broken(0, uint64_t{0x1b}), loss, "magic is \"\\x1b");
  EXPECT_FAILS(broken(8, uint32_t{2}), loss, "version is 2");
  EXPECT_FAILS(broken(56, kExabyte), loss, "size");
  EXPECT_FAILS(broken(56, kFileBytes + 1), loss, "size");
  EXPECT_FAILS(broken(56, uint64_t{0}), loss, "size 0");
  EXPECT_FAILS(broken(64, uint64_t{0}), loss, "data_begin 0");
  EXPECT_FAILS(broken(64, kDataBegin + 512), loss, "data_begin");
  EXPECT_FAILS(broken(64, kFileBytes), loss, "not above data_begin");
  EXPECT_FAILS(broken(64, ~uint64_t{4095}), loss, "not above data_begin");
  EXPECT_FAILS(broken(72, ~uint64_t{4095}), loss, "data_end");
  EXPECT_FAILS(broken(72, kFileBytes), loss, "data_end");
  EXPECT_FAILS(broken(72, kFileBytes - kDataTailBytes - 1), loss, "data_end");
  EXPECT_FAILS(broken(108, uint8_t{0}), loss, "state 0");
  EXPECT_FAILS(broken(108, uint8_t{4}), loss, "state 4");
  EXPECT_FAILS(broken(109, uint8_t{16}), loss, "unit_log2 is 16");
  EXPECT_FAILS(DecodeLabel(std::span<const std::byte>(good).first(4095)), loss, "only 4095");
}

TEST(Label, EveryFlippedBitIsFound) {
  const LabelBytes good = Encoded(SomeLabel());
  for (size_t bit = 0; bit < kLabelBytes * 8; bit += 7) {
    LabelBytes bytes = good;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FAILS(DecodeLabel(bytes), absl::StatusCode::kDataLoss, "") << "bit " << bit;
  }
}

TEST(Label, WhatADecoderRefusesIsNotWritten) {
  Label label = SomeLabel();
  label.tier_name = std::string("a\0b", 3);
  EXPECT_FAILS(CheckLabel(label), absl::StatusCode::kInvalidArgument, "NUL");
  label.tier_name = std::string(65, 'x');
  EXPECT_FAILS(CheckLabel(label), absl::StatusCode::kInvalidArgument, "65 bytes");
}

TEST_F(LabelFileTest, AnyOneGoodCopyIsEnough) {
  ASSERT_OK(WriteLabels(*file_, SomeLabel()));
  const uint64_t offsets[] = {kLabelAOffset, kLabelBOffset, SomeLabel().data_end};
  const char* letters[] = {"label A at 0", "label B at 4096", "label C at 15728640"};
  for (size_t kept = 0; kept < 3; ++kept) {
    for (size_t i = 0; i < 3; ++i) {
      if (i == kept) continue;
      ASSERT_OK(disk_.FlipBits("/00000007.tsd", offsets[i] + 20, 0x40));
    }
    ASSERT_OK_AND_ASSIGN(const LabelReading reading, ReadLabel(*file_));
    EXPECT_EQ(reading.label, SomeLabel());
    ASSERT_EQ(reading.damaged.size(), 2u);
    for (size_t i = 0, line = 0; i < 3; ++i) {
      if (i == kept) continue;
      EXPECT_TRUE(reading.damaged[line].starts_with(letters[i])) << reading.damaged[line];
      EXPECT_NE(reading.damaged[line++].find("hash"), std::string::npos);
      ASSERT_OK(disk_.FlipBits("/00000007.tsd", offsets[i] + 20, 0x40));
    }
  }
  for (const uint64_t offset : offsets) ASSERT_OK(disk_.FlipBits("/00000007.tsd", offset, 1));
  EXPECT_FAILS(ReadLabel(*file_), absl::StatusCode::kDataLoss, "/00000007.tsd has no valid label: label A at 0: magic");
}

TEST_F(LabelFileTest, TheHighestSequenceWins) {
  ASSERT_OK(WriteLabels(*file_, SomeLabel()));
  Label newer = SomeLabel();
  newer.label_seq = 4;
  newer.state = LabelState::kDraining;
  ASSERT_OK(WriteExactly(*file_, SomeLabel().data_end, Encoded(newer)));
  ASSERT_OK_AND_ASSIGN(const LabelReading reading, ReadLabel(*file_));
  EXPECT_EQ(reading.label, newer);
  ASSERT_EQ(reading.damaged.size(), 2u);
  EXPECT_NE(reading.damaged[0].find("label_seq 3"), std::string::npos) << reading.damaged[0];
}

TEST_F(LabelFileTest, AFileOfAnotherLengthIsRefused) {
  ASSERT_OK(WriteLabels(*file_, SomeLabel()));
  ASSERT_OK(file_->Truncate(kFileBytes + kUnitBytes));
  EXPECT_FAILS(ReadLabel(*file_), absl::StatusCode::kDataLoss, "has grown");
  ASSERT_OK(file_->Truncate(kFileBytes - kUnitBytes));
  EXPECT_FAILS(ReadLabel(*file_), absl::StatusCode::kDataLoss, "was truncated");
  ASSERT_OK(file_->Truncate(100));
  EXPECT_FAILS(ReadLabel(*file_), absl::StatusCode::kDataLoss, "has no valid label");
}

TEST_F(LabelFileTest, UnknownFeatures) {
  Label label = SomeLabel();
  label.ro_compat = 4;
  ASSERT_OK(WriteLabels(*file_, label));
  ASSERT_OK_AND_ASSIGN(const LabelReading reading, ReadLabel(*file_));
  EXPECT_EQ(reading.access, FeatureAccess::kReadOnly);
  EXPECT_EQ(reading.label.compat, 0x10u);  // unknown as well, kept and harmless
  label.ro_compat = 0;
  label.incompat = 1 | uint64_t{1} << 41;
  ASSERT_OK(WriteLabels(*file_, label));
  EXPECT_FAILS(ReadLabel(*file_), absl::StatusCode::kFailedPrecondition, "incompat feature 0 (compression)");
  EXPECT_FAILS(ReadLabel(*file_), absl::StatusCode::kFailedPrecondition, "incompat feature 41 (no name");
}

TEST_F(LabelFileTest, ACrashDuringARewriteLeavesTheOldOrTheNewLabel) {
  ASSERT_OK(WriteLabels(*file_, SomeLabel()));
  Label newer = SomeLabel();
  newer.label_seq = 4;
  newer.state = LabelState::kDraining;
  const LabelBytes bytes = Encoded(newer);
  // The steps of WriteLabels, with a crash after each of them.
  const std::function<absl::Status()> steps[] = {
      [&] { return WriteExactly(*file_, kLabelAOffset, bytes); }, [&] { return file_->Sync(); },
      [&] { return WriteExactly(*file_, kLabelBOffset, bytes); },
      [&] { return WriteExactly(*file_, newer.data_end, bytes); }, [&] { return file_->Sync(); }};
  for (size_t step = 0; step < std::size(steps); ++step) {
    ASSERT_OK(steps[step]());
    for (uint64_t seed = 0; seed < 50; ++seed) {
      auto crashed = disk_.AfterCrash(CrashPolicy::RandomSectors(seed));
      ASSERT_OK_AND_ASSIGN(auto file, crashed->Open("/00000007.tsd", {}));
      ASSERT_OK_AND_ASSIGN(const LabelReading reading, ReadLabel(*file));
      EXPECT_TRUE(reading.label == newer || (step == 0 && reading.label == SomeLabel())) << "step " << step;
    }
  }
}

TEST_F(LabelFileTest, WriteLabelsSyncsAThenTheOthers) {
  ASSERT_OK(WriteLabels(*file_, SomeLabel()));
  auto crashed = disk_.AfterCrash(CrashPolicy::DropUnsynced());
  ASSERT_OK_AND_ASSIGN(auto file, crashed->Open("/00000007.tsd", {}));
  ASSERT_OK_AND_ASSIGN(const LabelReading reading, ReadLabel(*file));
  EXPECT_EQ(reading.label, SomeLabel());
  EXPECT_TRUE(reading.damaged.empty());
}

}  // namespace
}  // namespace tensorshelf
