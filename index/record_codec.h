// Bytes of each index row. Decoders treat their input as hostile: every length is checked before it is used, nothing is
// allocated on the strength of an unchecked number, and each failure is DataLoss naming the field and the two numbers.
// The one other failure is Unimplemented: the object is whole, but needs a feature that this version does not know.

#ifndef TENSORSHELF_INDEX_RECORD_CODEC_H_
#define TENSORSHELF_INDEX_RECORD_CODEC_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/record.h"

namespace tensorshelf {

// InvalidArgument when a field is beyond the format's limits (ndim > 64, metadata > 64 KiB, more than 65535 columns, a
// block outside 4 KiB to 1 GiB, an empty extent, sums that are neither absent nor one per block).
absl::StatusOr<std::string> EncodeRecord(const ObjectRecord& record);
// Unimplemented: an unknown bit of `incompat`, or a critical TLV with an unknown tag.
absl::StatusOr<ObjectRecord> DecodeRecord(std::span<const std::byte> bytes);
// The encoded size in bytes, without encoding: the store needs it to reserve a trailer before the sums are known
// (`sums_in_record` = how many sums will be in the record).
size_t EncodedRecordSize(const ObjectRecord& record, size_t sums_in_record);

// The allocator's part of a record only (generation, placement, trailer, columns): these never change within format
// version 1, so they decode also where `incompat` names something unknown. Verifies the record's hash.
struct RecordSpace {
  uint64_t generation = 0;
  Placement placement = Placement::kNone;
  uint32_t incompat = 0;
  std::vector<Extent> extents;  // trailer included
};
absl::StatusOr<RecordSpace> DecodeRecordSpace(std::span<const std::byte> bytes);

std::string EncodeNameRow(const NameRow& row);
absl::StatusOr<NameRow> DecodeNameRow(std::span<const std::byte> bytes);

std::string EncodeFileRow(const FileRow& row);
absl::StatusOr<FileRow> DecodeFileRow(std::span<const std::byte> bytes);
std::string EncodeDeviceRow(const DeviceRow& row);
absl::StatusOr<DeviceRow> DecodeDeviceRow(std::span<const std::byte> bytes);
std::string EncodeTuningRow(const TuningRow& row);
absl::StatusOr<TuningRow> DecodeTuningRow(std::span<const std::byte> bytes);
std::string EncodeSuperRow(const SuperRow& row);
absl::StatusOr<SuperRow> DecodeSuperRow(std::span<const std::byte> bytes);
std::string EncodeCommitRow(const CommitRow& row);
absl::StatusOr<CommitRow> DecodeCommitRow(std::span<const std::byte> bytes);
std::string EncodeInlineCountRow(const InlineCountRow& row);
absl::StatusOr<InlineCountRow> DecodeInlineCountRow(std::span<const std::byte> bytes);

// A row of the `sums` family: up to 2048 sums, then their hash.
std::string EncodeSumsRow(std::span<const uint64_t> sums);
absl::StatusOr<std::vector<uint64_t>> DecodeSumsRow(std::span<const std::byte> bytes);

// A row of the `inline` family: record, payload, hash of the payload. The payload has exactly `stored_bytes` bytes.
absl::StatusOr<std::string> EncodeInlineRow(const ObjectRecord& record, std::span<const std::byte> payload);
struct InlineRow {
  ObjectRecord record;
  std::string payload;
};
absl::StatusOr<InlineRow> DecodeInlineRow(std::span<const std::byte> bytes);

// Keys. Numbers are big-endian, so that RocksDB's byte order is their order.
inline constexpr uint8_t kUserNamespace = 1;
std::string NameKey(const std::string& name);  // namespace byte, name
std::string GenerationKey(uint64_t generation);
std::string SumsKey(uint64_t generation, uint32_t row);

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_RECORD_CODEC_H_
