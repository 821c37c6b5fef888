// Goal: rows decode to what was encoded, version 1 rows decode for ever, and no bytes whatever do worse than an error.
// Method: round trips, golden bytes, one damaged field at a time with its hash made right again, seeded random
// mutations.

#include "index/record_codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "absl/strings/escaping.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using absl::StatusCode;

// Uses every field.
ObjectRecord FullRecord() {
  ObjectRecord record;
  record.kind = ObjectKind::kTensor;
  record.placement = Placement::kExtents;
  record.dtype = 0x0102;
  record.block_log2 = 16;
  record.sum_algo = 1;
  record.stripe_log2 = 22;
  record.generation = (uint64_t{3} << 40) | 17;
  record.logical_bytes = 131000;
  record.stored_bytes = 131072;
  record.created_ns = -5;
  for (size_t i = 0; i < record.fingerprint.size(); ++i) record.fingerprint[i] = static_cast<uint8_t>(0xf0 + i);
  record.place_seq = 9;
  record.trailer = Extent{.file_id = 2, .units = 1, .first_unit = 5000};
  record.columns = {{{.file_id = 1, .units = 10, .first_unit = 256}, {.file_id = 1, .units = 6, .first_unit = 1024}},
                    {{.file_id = 2, .units = 16, .first_unit = 4096}}};
  record.shape = {131, 1000};
  record.sums = {0x1111111111111111, 0x2222222222222222};
  record.tlvs = {{.tag = kTlvMetadata, .value = std::string("key\0value", 9)},
                 {.tag = 0x0777, .value = std::string("\x00\xff", 2)}};
  return record;
}

std::string Encoded(const ObjectRecord& record) {
  auto bytes = EncodeRecord(record);
  EXPECT_OK(bytes);
  return bytes.ok() ? *std::move(bytes) : std::string();
}

// `bytes` with its last eight replaced by the hash of the others.
std::string Rehashed(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  ByteWriter(&bytes).Little<uint64_t>(Hash64(BytesOf(bytes)));
  return bytes;
}

std::string WithByte(std::string bytes, size_t offset, uint8_t value) {
  bytes[offset] = static_cast<char>(value);
  return Rehashed(std::move(bytes));
}

template <typename T>
std::string WithNumber(std::string bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  return Rehashed(std::move(bytes));
}

TEST(RecordCodecTest, ARecordComesBackAndItsSizeWasKnown) {
  ObjectRecord least;
  ObjectRecord bytes_object = FullRecord();
  bytes_object.kind = ObjectKind::kBytes;
  bytes_object.shape.clear();
  bytes_object.sums.clear();
  ObjectRecord many_dimensions = FullRecord();
  many_dimensions.shape.assign(kDimensionsMax, 1);
  many_dimensions.stored_bytes = kSumsInRecordMax << 16;
  many_dimensions.sums.assign(kSumsInRecordMax, 7);
  many_dimensions.columns.assign(1000, {{.file_id = 1, .units = 1, .first_unit = 1}});
  for (const ObjectRecord& record : {FullRecord(), least, bytes_object, many_dimensions}) {
    const std::string bytes = Encoded(record);
    EXPECT_EQ(bytes.size(), EncodedRecordSize(record, record.sums.size()));
    ASSERT_OK_AND_ASSIGN(const ObjectRecord decoded, DecodeRecord(BytesOf(bytes)));
    EXPECT_EQ(decoded, record);
    EXPECT_EQ(Encoded(decoded), bytes);
  }
}

// Made once with version 1. If this test fails, stores that exist can no longer be read.
constexpr char kGoldenRecord[] =
    "010101000201021001160200000000001100000000030000b8ff0100000000000000020000000000fbfffffffffffffff0f1f2f3"
    "f4f5f6f7f8f9fafbfcfdfeff09000000000000000200000001000000881300000000000002000000010000000a00000000010000"
    "000000000100000006000000000400000000000001000000020000001000000000100000000000008300000000000000e8030000"
    "000000000100090000006b65790076616c756577070200000000ff02001000000011111111111111112222222222222222797b46"
    "cb1f21ac3b";
constexpr char kGoldenInline[] =
    "01020200000000100100000000000000020100000000000005000000000000000500000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000001fcbc900267bbc4168656c6c6ffddc62"
    "5c55e85595";
constexpr char kGoldenName[] = "01010201000000000000058003000000746c76";
constexpr char kGoldenFile[] =
    "010700000001020000000000000000000000000000000000010000000000001000000000000000f00000000000a33cff9d0d3789"
    "85";
constexpr char kGoldenDevice[] = "01030400000000000000000000000000000500000004006e766d65557d2870ef54dd99";
constexpr char kGoldenSuper[] =
    "010908000000000000000000000000000001000000000000000200000000000000030000000000000004000000000000000b0f39"
    "dc0e1522bb";
constexpr char kGoldenCommit[] = "01e803000000000000ffffffffffffffffc2faa1c7a1cdea1e";
constexpr char kGoldenCount[] = "0103000000000000006300000000000000ba67486ce1bf64da";
constexpr char kGoldenSums[] = "01000000000000000000000000000080d76e928aa5fa122c";

ObjectRecord GoldenInlineRecord() {
  ObjectRecord record;
  record.kind = ObjectKind::kBytes;
  record.placement = Placement::kInline;
  record.generation = 258;
  record.logical_bytes = record.stored_bytes = 5;
  return record;
}
const NameRow kName{.flags = NameRow::kInline, .generation = 258, .tlvs = {{.tag = 0x8005, .value = "tlv"}}};
const FileRow kFile{.file_id = 7, .device_uuid = {1, 2}, .size = 1 << 24, .data_begin = 1 << 20, .data_end = 15 << 20};
const DeviceRow kDevice{.uuid = {3, 4}, .tier_id = 5, .tier_name = "nvme"};
const TuningRow kTuning{.device_uuid = {5, 6},
                        .io_size = 2 << 20,
                        .queue_depth = 16,
                        .worker_count = 4,
                        .read_bytes_per_s = 3'000'000'000,
                        .write_bytes_per_s = 1};
const SuperRow kSuper{.store_uuid = {9, 8}, .compat = 1, .ro_compat = 2, .incompat = 3, .epoch = 4};
const CommitRow kCommit{.commit = 1000, .time_ns = -1};
const InlineCountRow kCount{.rows = 3, .bytes = 99};
const uint64_t kSums[] = {1, uint64_t{1} << 63};

TEST(RecordCodecTest, GoldenBytesDecodeForEver) {
  const auto bytes = [](const char* hex) { return absl::HexStringToBytes(hex); };
  const auto hex = [](const std::string& text) { return absl::BytesToHexString(text); };
  EXPECT_EQ(hex(Encoded(FullRecord())), kGoldenRecord);
  EXPECT_EQ(DecodeRecord(BytesOf(bytes(kGoldenRecord))).value(), FullRecord());
  const std::string payload = "hello";
  EXPECT_EQ(hex(EncodeInlineRow(GoldenInlineRecord(), BytesOf(payload)).value()), kGoldenInline);
  const InlineRow row = DecodeInlineRow(BytesOf(bytes(kGoldenInline))).value();
  EXPECT_EQ(row.record, GoldenInlineRecord());
  EXPECT_EQ(row.payload, payload);
  EXPECT_EQ(hex(EncodeNameRow(kName)), kGoldenName);
  EXPECT_EQ(DecodeNameRow(BytesOf(bytes(kGoldenName))).value(), kName);
  EXPECT_EQ(hex(EncodeFileRow(kFile)), kGoldenFile);
  EXPECT_EQ(DecodeFileRow(BytesOf(bytes(kGoldenFile))).value(), kFile);
  EXPECT_EQ(hex(EncodeDeviceRow(kDevice)), kGoldenDevice);
  EXPECT_EQ(DecodeDeviceRow(BytesOf(bytes(kGoldenDevice))).value(), kDevice);
  EXPECT_EQ(hex(EncodeSuperRow(kSuper)), kGoldenSuper);
  EXPECT_EQ(DecodeSuperRow(BytesOf(bytes(kGoldenSuper))).value(), kSuper);
  EXPECT_EQ(hex(EncodeCommitRow(kCommit)), kGoldenCommit);
  EXPECT_EQ(DecodeCommitRow(BytesOf(bytes(kGoldenCommit))).value(), kCommit);
  EXPECT_EQ(hex(EncodeInlineCountRow(kCount)), kGoldenCount);
  EXPECT_EQ(DecodeInlineCountRow(BytesOf(bytes(kGoldenCount))).value(), kCount);
  EXPECT_EQ(hex(EncodeSumsRow(kSums)), kGoldenSums);
  EXPECT_EQ(DecodeSumsRow(BytesOf(bytes(kGoldenSums))).value(), std::vector<uint64_t>(kSums, kSums + 2));
}

TEST(RecordCodecTest, KeysSortAsTheirNumbers) {
  EXPECT_EQ(NameKey("ab"),
            "\x01"
            "ab");
  EXPECT_LT(GenerationKey(255), GenerationKey(256));
  EXPECT_LT(SumsKey(5, UINT32_MAX), SumsKey(6, 0));
  EXPECT_EQ(absl::BytesToHexString(SumsKey(0x0102030405060708, 0x0a0b0c0d)), "01020304050607080a0b0c0d");
}

TEST(RecordCodecTest, EachDamagedFieldHasItsError) {
  const std::string good = Encoded(FullRecord());
  const size_t columns_at = 88;
  const size_t shape_at = columns_at + 4 + 32 + 4 + 16;
  const size_t tlvs_at = shape_at + 16;
  struct Damage {
    std::string bytes;
    StatusCode code;
    const char* text;
  };
  const Damage damages[] = {
      {"", StatusCode::kDataLoss, "record"},
      {good.substr(0, 95), StatusCode::kDataLoss, "record: needs 96 bytes, 95"},
      {good.substr(0, good.size() - 1), StatusCode::kDataLoss, "hash"},
      {good + '\0', StatusCode::kDataLoss, "hash"},
      {WithByte(good, 0, 2), StatusCode::kDataLoss, "version is 2"},
      {WithByte(good, 1, 0), StatusCode::kDataLoss, "kind is 0"},
      {WithByte(good, 1, 3), StatusCode::kDataLoss, "kind is 3"},
      {WithByte(good, 2, 4), StatusCode::kDataLoss, "placement is 4"},
      {WithByte(good, 6, 65), StatusCode::kDataLoss, "dimensions is 65"},
      {WithByte(good, 6, 60), StatusCode::kDataLoss, "shape"},
      {WithByte(good, 7, 11), StatusCode::kDataLoss, "block_log2 is 11"},
      {WithByte(good, 7, 31), StatusCode::kDataLoss, "block_log2 is 31"},
      {WithByte(good, 9, 15), StatusCode::kDataLoss, "stripe_log2 is 15"},
      {WithByte(good, 9, 41), StatusCode::kDataLoss, "stripe_log2 is 41"},
      {WithNumber<uint16_t>(good, 10, 65535), StatusCode::kDataLoss, "columns: needs 262140"},
      {WithNumber<uint16_t>(good, 10, 3), StatusCode::kDataLoss, "column extents"},
      {WithNumber<uint32_t>(good, 12, 0x10), StatusCode::kUnimplemented, "features 10"},
      {WithNumber<uint64_t>(good, 24, (uint64_t{1} << 62) + 1), StatusCode::kDataLoss, "logical_bytes"},
      {WithNumber<uint64_t>(good, 32, UINT64_MAX), StatusCode::kDataLoss, "stored_bytes"},
      {WithNumber<uint64_t>(good, 32, 131073), StatusCode::kDataLoss, "2 sums for 3 blocks"},
      {WithNumber<uint32_t>(good, 68, 1), StatusCode::kDataLoss, "reserved word is 1"},
      {WithNumber<uint64_t>(good, 80, UINT64_MAX), StatusCode::kDataLoss, "trailer unit"},
      {WithNumber<uint32_t>(good, columns_at, UINT32_MAX), StatusCode::kDataLoss, "column extents: needs 68719476720"},
      {WithNumber<uint32_t>(good, columns_at + 8, 0), StatusCode::kDataLoss, "extent 0 has 0 units"},
      {WithNumber<uint64_t>(good, columns_at + 12, UINT64_MAX), StatusCode::kDataLoss, "extent unit"},
      {WithNumber<uint32_t>(good, tlvs_at + 2, UINT32_MAX), StatusCode::kDataLoss, "TLV value: needs 4294967295"},
      {WithNumber<uint16_t>(good, tlvs_at, 0x8001), StatusCode::kUnimplemented, "critical part 8001"},
      {WithNumber<uint16_t>(good, tlvs_at, kTlvSums), StatusCode::kDataLoss, "sums TLV"},
      {Rehashed(good + "abc"), StatusCode::kDataLoss, "TLV"},
  };
  for (const Damage& damage : damages) {
    EXPECT_FAILS(DecodeRecord(BytesOf(damage.bytes)), damage.code, damage.text);
  }
  for (size_t i = 0; i < good.size(); ++i) {
    std::string flipped = good;
    flipped[i] ^= 0x10;
    EXPECT_FAILS(DecodeRecord(BytesOf(flipped)), StatusCode::kDataLoss, "record hash") << "byte " << i;
  }
}

TEST(RecordCodecTest, MetadataHasALimit) {
  ObjectRecord record = FullRecord();
  record.tlvs = {{.tag = kTlvMetadata, .value = std::string(kMetadataBytesMax, 'm')}};
  EXPECT_OK(DecodeRecord(BytesOf(Encoded(record))));
  record.tlvs[0].value.push_back('m');
  EXPECT_FAILS(EncodeRecord(record), StatusCode::kInvalidArgument, "metadata");
  record.tlvs[0].tag = 0x0123;
  const std::string other = Encoded(record);
  EXPECT_FAILS(DecodeRecord(BytesOf(
                   WithNumber<uint16_t>(other, other.size() - 8 - 6 - 16 - 6 - kMetadataBytesMax - 1, kTlvMetadata))),
               StatusCode::kDataLoss, "metadata");
}

TEST(RecordCodecTest, WhatTheFormatCannotHoldIsNotEncoded) {
  const std::pair<std::function<void(ObjectRecord&)>, const char*> refusals[] = {
      {[](ObjectRecord& r) { r.shape.assign(65, 1); }, "dimensions"},
      {[](ObjectRecord& r) { r.columns.resize(65536); }, "columns"},
      {[](ObjectRecord& r) { r.block_log2 = 9; }, "block_log2"},
      {[](ObjectRecord& r) { r.sums.push_back(1); }, "3 sums for 2 blocks"},
      {[](ObjectRecord& r) { r.tlvs.push_back({.tag = kTlvSums, .value = "12345678"}); }, "sums as a TLV"},
      {[](ObjectRecord& r) { r.columns[0][0].units = 0; }, "0 units"},
      {[](ObjectRecord& r) { r.columns[0][0].first_unit = UINT64_MAX; }, "extent unit"},
      {[](ObjectRecord& r) { r.trailer.first_unit = UINT64_MAX; }, "trailer unit"},
  };
  for (const auto& [change, text] : refusals) {
    ObjectRecord record = FullRecord();
    change(record);
    EXPECT_FAILS(EncodeRecord(record), StatusCode::kInvalidArgument, text);
  }
  const std::string payload = "four";
  EXPECT_FAILS(EncodeInlineRow(GoldenInlineRecord(), BytesOf(payload)), StatusCode::kInvalidArgument, "4 bytes");
}

TEST(RecordCodecTest, SpaceIsKnownAlsoOfAnObjectFromTheFuture) {
  // An unknown feature, and behind the columns nothing that this version could parse.
  std::string future = WithNumber<uint32_t>(Encoded(FullRecord()), 12, 0x80);
  future.resize(88 + 4 + 32 + 4 + 16);
  future = Rehashed(future + "!unknown");
  EXPECT_FAILS(DecodeRecord(BytesOf(future)), StatusCode::kUnimplemented, "80");
  ASSERT_OK_AND_ASSIGN(const RecordSpace space, DecodeRecordSpace(BytesOf(future)));
  const ObjectRecord record = FullRecord();
  EXPECT_EQ(space.generation, record.generation);
  EXPECT_EQ(space.placement, record.placement);
  EXPECT_EQ(space.incompat, 0x80u);
  EXPECT_EQ(space.extents,
            (std::vector<Extent>{record.columns[0][0], record.columns[0][1], record.columns[1][0], record.trailer}));
  EXPECT_FAILS(DecodeRecordSpace(BytesOf(WithNumber<uint16_t>(future, 10, 9))), StatusCode::kDataLoss, "column");
  future[20] ^= 1;
  EXPECT_FAILS(DecodeRecordSpace(BytesOf(future)), StatusCode::kDataLoss, "hash");
}

TEST(RecordCodecTest, OtherRowsRefuseDamage) {
  std::string bytes = EncodeNameRow(kName);
  EXPECT_FAILS(DecodeNameRow(BytesOf(bytes.substr(0, 9))), StatusCode::kDataLoss, "name row");
  EXPECT_FAILS(DecodeNameRow(BytesOf(bytes + "x")), StatusCode::kDataLoss, "TLV");
  bytes[0] = 2;
  EXPECT_FAILS(DecodeNameRow(BytesOf(bytes)), StatusCode::kDataLoss, "version is 2");

  EXPECT_FAILS(DecodeFileRow(BytesOf(Rehashed(EncodeFileRow(kFile) + "x"))), StatusCode::kDataLoss, "fields");
  EXPECT_FAILS(DecodeFileRow(BytesOf(WithByte(EncodeFileRow(kFile), 0, 2))), StatusCode::kDataLoss, "file row");
  FileRow inside_out = kFile;
  inside_out.data_end = inside_out.data_begin - 1;
  EXPECT_FAILS(DecodeFileRow(BytesOf(EncodeFileRow(inside_out))), StatusCode::kDataLoss, "data area");
  EXPECT_FAILS(DecodeDeviceRow(BytesOf(WithByte(EncodeDeviceRow(kDevice), 21, 5))), StatusCode::kDataLoss, "tier name");
  EXPECT_EQ(DecodeTuningRow(BytesOf(EncodeTuningRow(kTuning))).value(), kTuning);
  EXPECT_FAILS(DecodeTuningRow(BytesOf(EncodeDeviceRow(kDevice))), StatusCode::kDataLoss, "tuning row");
  for (const TuningRow& useless : {TuningRow{.io_size = 0, .queue_depth = 1, .worker_count = 1},
                                   TuningRow{.io_size = 4097, .queue_depth = 1, .worker_count = 1},
                                   TuningRow{.io_size = 4096, .queue_depth = 0, .worker_count = 1},
                                   TuningRow{.io_size = 4096, .queue_depth = 1, .worker_count = 257}}) {
    EXPECT_FAILS(DecodeTuningRow(BytesOf(EncodeTuningRow(useless))), StatusCode::kDataLoss, "no device is driven");
  }
  EXPECT_FAILS(DecodeSuperRow(BytesOf(EncodeCommitRow(kCommit))), StatusCode::kDataLoss, "super row");
  EXPECT_FAILS(DecodeCommitRow({}), StatusCode::kDataLoss, "commit row");
  EXPECT_FAILS(DecodeInlineCountRow(BytesOf(WithByte(EncodeInlineCountRow(kCount), 0, 9))), StatusCode::kDataLoss,
               "inline count row");

  const std::vector<uint64_t> too_many(kSumsPerRow + 1);
  std::string sums(too_many.size() * 8 + 8, '\0');
  EXPECT_FAILS(DecodeSumsRow(BytesOf(Rehashed(sums))), StatusCode::kDataLoss, "sums row");
  EXPECT_FAILS(DecodeSumsRow(BytesOf(EncodeSumsRow(kSums) + "x")), StatusCode::kDataLoss, "multiple of 8");
  EXPECT_OK(DecodeSumsRow(BytesOf(EncodeSumsRow(std::vector<uint64_t>(kSumsPerRow)))));

  const std::string payload = "hello";
  const std::string row = EncodeInlineRow(GoldenInlineRecord(), BytesOf(payload)).value();
  std::string damaged = row;
  damaged[row.size() - 9] ^= 1;
  EXPECT_FAILS(DecodeInlineRow(BytesOf(damaged)), StatusCode::kDataLoss, "payload hash");
  damaged = row;
  damaged[32] = 6;
  EXPECT_FAILS(DecodeInlineRow(BytesOf(damaged)), StatusCode::kDataLoss, "payload: needs 6");
  EXPECT_FAILS(DecodeInlineRow(BytesOf(row.substr(0, 100))), StatusCode::kDataLoss, "inline row");
}

TEST(RecordCodecTest, RandomMutationsNeverDoWorseThanAnError) {
  const uint64_t seed = testing::Seed(20240611), rounds = testing::Scaled(20000);
  testing::ReportTried(rounds, seed);
  std::mt19937_64 random(seed);
  const std::string payload = "hello";
  const std::string rows[] = {Encoded(FullRecord()),    EncodeInlineRow(GoldenInlineRecord(), BytesOf(payload)).value(),
                              EncodeNameRow(kName),     EncodeFileRow(kFile),
                              EncodeDeviceRow(kDevice), EncodeSuperRow(kSuper),
                              EncodeTuningRow(kTuning), EncodeSumsRow(kSums)};
  uint64_t decoded = 0;
  for (uint64_t i = 0; i < rounds; ++i) {
    std::string bytes = rows[random() % std::size(rows)];
    for (uint64_t n = 1 + random() % 4; n > 0 && !bytes.empty(); --n) {
      switch (random() % 4) {
        case 0:
          bytes[random() % bytes.size()] = static_cast<char>(random());
          break;
        case 1:
          bytes[random() % bytes.size()] = static_cast<char>(random() % 2 == 0 ? 0xff : 0);
          break;
        case 2:
          bytes.resize(random() % bytes.size());
          break;
        default:
          bytes.insert(random() % bytes.size(), 1 + random() % 16, static_cast<char>(random()));
      }
    }
    // Most with a right hash, or nothing behind it would be reached.
    if (bytes.size() >= 8 && random() % 8 != 0) bytes = Rehashed(std::move(bytes));
    const auto record = DecodeRecord(BytesOf(bytes));
    if (record.ok()) {
      ++decoded;
      EXPECT_OK(EncodeRecord(*record)) << "seed " << seed << " round " << i;
      EXPECT_OK(DecodeRecordSpace(BytesOf(bytes))) << "seed " << seed << " round " << i;
    }
    for (const absl::Status& status :
         {record.status(), DecodeRecordSpace(BytesOf(bytes)).status(), DecodeInlineRow(BytesOf(bytes)).status(),
          DecodeNameRow(BytesOf(bytes)).status(), DecodeFileRow(BytesOf(bytes)).status(),
          DecodeDeviceRow(BytesOf(bytes)).status(), DecodeTuningRow(BytesOf(bytes)).status(),
          DecodeSuperRow(BytesOf(bytes)).status(), DecodeCommitRow(BytesOf(bytes)).status(),
          DecodeInlineCountRow(BytesOf(bytes)).status(), DecodeSumsRow(BytesOf(bytes)).status()}) {
      EXPECT_TRUE(status.ok() || absl::IsDataLoss(status) || absl::IsUnimplemented(status))
          << status << " seed " << seed << " round " << i;
    }
  }
  EXPECT_GT(decoded, rounds / 100);  // else the mutations are too wild to test what lies behind the hash
}

}  // namespace
}  // namespace tensorshelf
