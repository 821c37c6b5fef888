#include "index/record_codec.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"

// OBJECT RECORD, little-endian
//     0  u8   version, 1
//     1  u8   kind: 1 tensor, 2 bytes
//     2  u8   placement: 0 none, 1 extents, 2 inline, 3 external
//     3  u8   encoding: 0 raw
//     4  u16  dtype
//     6  u8   dimensions, at most 64
//     7  u8   block_log2, 12 to 30
//     8  u8   sum_algo: 1 = low 64 bits of XXH3-128
//     9  u8   stripe_log2: 0 off
//    10  u16  columns
//    12  u32  incompat
//    16  u64  generation
//    24  u64  logical_bytes
//    32  u64  stored_bytes
//    40  i64  created_ns
//    48  u8   fingerprint[16]
//    64  u32  place_seq
//    68  u32  reserved, 0
//    72  EXTENT trailer: u32 file_id, u32 units (0 = none), u64 first_unit
//    88  for each column: u32 n, n x EXTENT
//     -  u64  shape[dimensions]
//     -  TLVs until the hash: u16 tag, u32 length, bytes. The sums (tag 2) come last.
//    -8  u64  XXH3-64 of all bytes before
//
// Up to the columns the layout never changes within version 1: DecodeRecordSpace depends on it.

namespace tensorshelf {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kHashBytes = 8;
constexpr size_t kRecordHeaderBytes = 88;
constexpr size_t kStoredBytesAt = 32;
constexpr size_t kExtentBytes = 16;
constexpr size_t kTlvHeaderBytes = 6;
constexpr size_t kColumnsMax = 65535;
constexpr uint8_t kBlockLog2Min = 12;
constexpr uint8_t kBlockLog2Max = 30;
constexpr uint8_t kStripeLog2Max = 40;
constexpr uint64_t kObjectBytesMax = uint64_t{1} << 62;  // so that rounding up to a block cannot overflow
constexpr uint64_t kUnitEndMax = uint64_t{1}
                                 << (62 - kUnitLog2);  // so that a byte offset fits into a signed 64-bit number

absl::Status TooShort(const char* what, uint64_t need, uint64_t have) {
  return absl::DataLossError(absl::StrCat(what, ": needs ", need, " bytes, ", have, " are left"));
}
absl::Status OutOfRange(const char* what, uint64_t value, uint64_t limit) {
  return absl::DataLossError(absl::StrCat(what, " is ", value, ", the limit is ", limit));
}

// Splits off the hash in the last 8 bytes and verifies it.
absl::StatusOr<std::span<const std::byte>> VerifyHash(const char* what, std::span<const std::byte> bytes) {
  if (bytes.size() < kHashBytes) return TooShort(what, kHashBytes, bytes.size());
  const auto body = bytes.first(bytes.size() - kHashBytes);
  const uint64_t stored = LoadLittle<uint64_t>(bytes.data() + body.size());
  const uint64_t actual = Hash64(body);
  if (stored != actual) {
    return absl::DataLossError(absl::StrCat(what, " hash is ", absl::Hex(actual, absl::kZeroPad16), ", stored is ",
                                            absl::Hex(stored, absl::kZeroPad16)));
  }
  return body;
}

void AppendHash(std::string* out) { ByteWriter(out).Little<uint64_t>(Hash64(BytesOf(*out))); }

void AppendExtent(ByteWriter* writer, const Extent& extent) {
  writer->Little<uint32_t>(extent.file_id);
  writer->Little<uint32_t>(extent.units);
  writer->Little<uint64_t>(extent.first_unit);
}

Extent LoadExtent(const std::byte* from) {
  return Extent{.file_id = LoadLittle<uint32_t>(from),
                .units = LoadLittle<uint32_t>(from + 4),
                .first_unit = LoadLittle<uint64_t>(from + 8)};
}

absl::Status CheckExtent(const char* what, const Extent& extent) {
  if (extent.first_unit > kUnitEndMax || extent.end_unit() > kUnitEndMax) {
    return OutOfRange(what, extent.first_unit, kUnitEndMax);
  }
  return absl::OkStatus();
}

void AppendTlv(ByteWriter* writer, const Tlv& tlv) {
  writer->Little<uint16_t>(tlv.tag);
  writer->Little<uint32_t>(static_cast<uint32_t>(tlv.value.size()));
  writer->Bytes(BytesOf(tlv.value));
}

// Calls `take` for each TLV until `reader` is empty.
template <typename Take>
absl::Status ReadTlvs(ByteReader* reader, const Take& take) {
  while (!reader->rest().empty()) {
    const size_t left = reader->rest().size();
    if (left < kTlvHeaderBytes) return TooShort("TLV header", kTlvHeaderBytes, left);
    const uint16_t tag = *reader->Little<uint16_t>();
    const uint32_t length = *reader->Little<uint32_t>();
    const auto value = reader->Bytes(length);
    if (!value) return TooShort("TLV value", length, reader->rest().size());
    TS_RETURN_IF_ERROR(take(tag, *value));
  }
  return absl::OkStatus();
}

std::string ToString(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// The part whose layout never changes, and where it ends.
struct RecordFront {
  const std::byte* header = nullptr;
  size_t dimensions = 0;
  size_t columns = 0;
  ByteReader after_header{{}};
};

absl::StatusOr<RecordFront> OpenRecord(std::span<const std::byte> bytes) {
  if (bytes.size() < kRecordHeaderBytes + kHashBytes) {
    return TooShort("record", kRecordHeaderBytes + kHashBytes, bytes.size());
  }
  TS_ASSIGN_OR_RETURN(const auto body, VerifyHash("record", bytes));
  const auto version = static_cast<uint8_t>(body[0]);
  if (version != kVersion) return OutOfRange("record version", version, kVersion);
  const auto placement = static_cast<uint8_t>(body[2]);
  if (placement > static_cast<uint8_t>(Placement::kExternal)) {
    return OutOfRange("record placement", placement, static_cast<uint8_t>(Placement::kExternal));
  }
  TS_RETURN_IF_ERROR(CheckExtent("record trailer unit", LoadExtent(body.data() + 72)));
  return RecordFront{.header = body.data(),
                     .dimensions = static_cast<uint8_t>(body[6]),
                     .columns = LoadLittle<uint16_t>(body.data() + 10),
                     .after_header = ByteReader(body.subspan(kRecordHeaderBytes))};
}

// Calls `begin_column(n)` and then `take(extent)` n times, for each column.
template <typename BeginColumn, typename Take>
absl::Status ReadColumns(size_t columns, ByteReader* reader, const BeginColumn& begin_column, const Take& take) {
  for (size_t column = 0; column < columns; ++column) {
    const auto count = reader->Little<uint32_t>();
    if (!count) return TooShort("record column", 4, reader->rest().size());
    const auto extents = reader->Bytes(uint64_t{*count} * kExtentBytes);
    if (!extents) return TooShort("record column extents", uint64_t{*count} * kExtentBytes, reader->rest().size());
    begin_column(*count);
    for (size_t i = 0; i < *count; ++i) {
      const Extent extent = LoadExtent(extents->data() + i * kExtentBytes);
      TS_RETURN_IF_ERROR(CheckExtent("record extent unit", extent));
      if (extent.units == 0) return absl::DataLossError(absl::StrCat("record extent ", i, " has 0 units, at least 1"));
      take(extent);
    }
  }
  return absl::OkStatus();
}

// What a reader of the whole record depends on; DataLoss. EncodeRecord asks the same questions.
absl::Status CheckFields(const ObjectRecord& record) {
  const auto kind = static_cast<uint8_t>(record.kind);
  if (kind < 1 || kind > 2) return OutOfRange("record kind", kind, 2);
  const auto placement = static_cast<uint8_t>(record.placement);
  if (placement > 3) return OutOfRange("record placement", placement, 3);
  if (record.block_log2 < kBlockLog2Min) return OutOfRange("record block_log2", record.block_log2, kBlockLog2Min);
  if (record.block_log2 > kBlockLog2Max) return OutOfRange("record block_log2", record.block_log2, kBlockLog2Max);
  if (record.stripe_log2 != 0 && record.stripe_log2 < record.block_log2) {
    return OutOfRange("record stripe_log2", record.stripe_log2, record.block_log2);
  }
  if (record.stripe_log2 > kStripeLog2Max) return OutOfRange("record stripe_log2", record.stripe_log2, kStripeLog2Max);
  if (record.shape.size() > kDimensionsMax) return OutOfRange("record dimensions", record.shape.size(), kDimensionsMax);
  if (record.columns.size() > kColumnsMax) return OutOfRange("record columns", record.columns.size(), kColumnsMax);
  if (record.logical_bytes > kObjectBytesMax) {
    return OutOfRange("record logical_bytes", record.logical_bytes, kObjectBytesMax);
  }
  if (record.stored_bytes > kObjectBytesMax) {
    return OutOfRange("record stored_bytes", record.stored_bytes, kObjectBytesMax);
  }
  if (record.sums.size() > kSumsInRecordMax) return OutOfRange("record sums", record.sums.size(), kSumsInRecordMax);
  if (!record.sums.empty() && record.sums.size() != record.sums_count()) {
    return absl::DataLossError(
        absl::StrCat("record has ", record.sums.size(), " sums for ", record.sums_count(), " blocks"));
  }
  for (const Tlv& tlv : record.tlvs) {
    if (tlv.tag == kTlvMetadata && tlv.value.size() > kMetadataBytesMax) {
      return OutOfRange("record metadata bytes", tlv.value.size(), kMetadataBytesMax);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEncodable(const ObjectRecord& record) {
  TS_RETURN_IF_ERROR(CheckFields(record));
  TS_RETURN_IF_ERROR(CheckExtent("record trailer unit", record.trailer));
  for (const auto& column : record.columns) {
    for (const Extent& extent : column) {
      TS_RETURN_IF_ERROR(CheckExtent("record extent unit", extent));
      if (extent.units == 0) return absl::DataLossError("record extent has 0 units, at least 1");
    }
  }
  for (const Tlv& tlv : record.tlvs) {
    if (tlv.tag == kTlvSums) return absl::DataLossError("record has its sums as a TLV, not in `sums`");
    if (tlv.value.size() > UINT32_MAX) return OutOfRange("record TLV bytes", tlv.value.size(), UINT32_MAX);
  }
  return absl::OkStatus();
}

void LoadHeader(const std::byte* at, ObjectRecord* record) {
  record->kind = static_cast<ObjectKind>(at[1]);
  record->placement = static_cast<Placement>(at[2]);
  record->encoding = static_cast<uint8_t>(at[3]);
  record->dtype = LoadLittle<uint16_t>(at + 4);
  record->block_log2 = static_cast<uint8_t>(at[7]);
  record->sum_algo = static_cast<uint8_t>(at[8]);
  record->stripe_log2 = static_cast<uint8_t>(at[9]);
  record->incompat = LoadLittle<uint32_t>(at + 12);
  record->generation = LoadLittle<uint64_t>(at + 16);
  record->logical_bytes = LoadLittle<uint64_t>(at + 24);
  record->stored_bytes = LoadLittle<uint64_t>(at + kStoredBytesAt);
  record->created_ns = static_cast<int64_t>(LoadLittle<uint64_t>(at + 40));
  std::memcpy(record->fingerprint.data(), at + 48, record->fingerprint.size());
  record->place_seq = LoadLittle<uint32_t>(at + 64);
  record->trailer = LoadExtent(at + 72);
}

absl::Status LoadSums(std::span<const std::byte> value, std::vector<uint64_t>* sums) {
  if (!sums->empty()) return absl::DataLossError("record has two sums TLVs, at most 1");
  if (value.empty() || value.size() % 8 != 0 || value.size() > kSumsInRecordMax * 8) {
    return absl::DataLossError(
        absl::StrCat("record sums TLV has ", value.size(), " bytes, a multiple of 8 up to ", kSumsInRecordMax * 8));
  }
  sums->resize(value.size() / 8);
  std::memcpy(sums->data(), value.data(), value.size());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> EncodeRecord(const ObjectRecord& record) {
  if (absl::Status status = CheckEncodable(record); !status.ok()) {
    return absl::InvalidArgumentError(status.message());
  }
  std::string out;
  out.reserve(EncodedRecordSize(record, record.sums.size()));
  ByteWriter writer(&out);
  writer.Little<uint8_t>(kVersion);
  writer.Little<uint8_t>(static_cast<uint8_t>(record.kind));
  writer.Little<uint8_t>(static_cast<uint8_t>(record.placement));
  writer.Little<uint8_t>(record.encoding);
  writer.Little<uint16_t>(record.dtype);
  writer.Little<uint8_t>(static_cast<uint8_t>(record.shape.size()));
  writer.Little<uint8_t>(record.block_log2);
  writer.Little<uint8_t>(record.sum_algo);
  writer.Little<uint8_t>(record.stripe_log2);
  writer.Little<uint16_t>(static_cast<uint16_t>(record.columns.size()));
  writer.Little<uint32_t>(record.incompat);
  writer.Little<uint64_t>(record.generation);
  writer.Little<uint64_t>(record.logical_bytes);
  writer.Little<uint64_t>(record.stored_bytes);
  writer.Little<uint64_t>(static_cast<uint64_t>(record.created_ns));
  writer.Bytes(std::as_bytes(std::span(record.fingerprint)));
  writer.Little<uint32_t>(record.place_seq);
  writer.Zeros(4);
  AppendExtent(&writer, record.trailer);
  for (const auto& column : record.columns) {
    writer.Little<uint32_t>(static_cast<uint32_t>(column.size()));
    for (const Extent& extent : column) AppendExtent(&writer, extent);
  }
  writer.Bytes(std::as_bytes(std::span(record.shape)));
  for (const Tlv& tlv : record.tlvs) AppendTlv(&writer, tlv);
  if (!record.sums.empty()) {
    writer.Little<uint16_t>(kTlvSums);
    writer.Little<uint32_t>(static_cast<uint32_t>(record.sums.size() * 8));
    writer.Bytes(std::as_bytes(std::span(record.sums)));
  }
  AppendHash(&out);
  return out;
}

size_t EncodedRecordSize(const ObjectRecord& record, size_t sums_in_record) {
  size_t size = kRecordHeaderBytes + record.shape.size() * 8 + kHashBytes;
  for (const auto& column : record.columns) size += 4 + column.size() * kExtentBytes;
  for (const Tlv& tlv : record.tlvs) size += kTlvHeaderBytes + tlv.value.size();
  if (sums_in_record > 0) size += kTlvHeaderBytes + sums_in_record * 8;
  return size;
}

absl::StatusOr<ObjectRecord> DecodeRecord(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(RecordFront front, OpenRecord(bytes));
  ObjectRecord record;
  LoadHeader(front.header, &record);
  if (record.incompat != 0) {
    return absl::UnimplementedError(absl::StrCat("object ", record.generation, " needs features ",
                                                 absl::Hex(record.incompat), " that this version does not know"));
  }
  if (const uint32_t reserved = LoadLittle<uint32_t>(front.header + 68); reserved != 0) {
    return OutOfRange("record reserved word", reserved, 0);
  }
  ByteReader& reader = front.after_header;
  // Each column takes at least its count, so this bounds the allocation by the size of the row.
  if (front.columns * 4 > reader.rest().size())
    return TooShort("record columns", front.columns * 4, reader.rest().size());
  record.columns.reserve(front.columns);
  TS_RETURN_IF_ERROR(ReadColumns(
      front.columns, &reader, [&](size_t count) { record.columns.emplace_back().reserve(count); },
      [&](const Extent& extent) { record.columns.back().push_back(extent); }));
  if (front.dimensions > kDimensionsMax) return OutOfRange("record dimensions", front.dimensions, kDimensionsMax);
  const auto shape = reader.Bytes(front.dimensions * 8);
  if (!shape) return TooShort("record shape", front.dimensions * 8, reader.rest().size());
  record.shape.resize(front.dimensions);
  if (!shape->empty()) std::memcpy(record.shape.data(), shape->data(), shape->size());
  TS_RETURN_IF_ERROR(ReadTlvs(&reader, [&](uint16_t tag, std::span<const std::byte> value) -> absl::Status {
    if (tag == kTlvSums) return LoadSums(value, &record.sums);
    if (tag & kTlvCritical) {
      return absl::UnimplementedError(absl::StrCat("object ", record.generation, " has a critical part ",
                                                   absl::Hex(tag), " that this version does not know"));
    }
    record.tlvs.push_back(Tlv{.tag = tag, .value = ToString(value)});
    return absl::OkStatus();
  }));
  TS_RETURN_IF_ERROR(CheckFields(record));
  return record;
}

absl::StatusOr<RecordSpace> DecodeRecordSpace(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(RecordFront front, OpenRecord(bytes));
  RecordSpace space{.generation = LoadLittle<uint64_t>(front.header + 16),
                    .placement = static_cast<Placement>(front.header[2]),
                    .incompat = LoadLittle<uint32_t>(front.header + 12),
                    .extents = {}};
  TS_RETURN_IF_ERROR(ReadColumns(
      front.columns, &front.after_header, [](size_t) {},
      [&](const Extent& extent) { space.extents.push_back(extent); }));
  const Extent trailer = LoadExtent(front.header + 72);
  if (trailer.units != 0) space.extents.push_back(trailer);
  return space;
}

// NAME ROW: u8 version, u8 flags (bit 0 inline), u64 generation, TLVs to the end.
std::string EncodeNameRow(const NameRow& row) {
  std::string out;
  ByteWriter writer(&out);
  writer.Little<uint8_t>(kVersion);
  writer.Little<uint8_t>(row.flags);
  writer.Little<uint64_t>(row.generation);
  for (const Tlv& tlv : row.tlvs) AppendTlv(&writer, tlv);
  return out;
}

absl::StatusOr<NameRow> DecodeNameRow(std::span<const std::byte> bytes) {
  if (bytes.size() < 10) return TooShort("name row", 10, bytes.size());
  ByteReader reader(bytes);
  if (const uint8_t version = *reader.Little<uint8_t>(); version != kVersion) {
    return OutOfRange("name row version", version, kVersion);
  }
  NameRow row;
  row.flags = *reader.Little<uint8_t>();
  row.generation = *reader.Little<uint64_t>();
  TS_RETURN_IF_ERROR(ReadTlvs(&reader, [&](uint16_t tag, std::span<const std::byte> value) {
    row.tlvs.push_back(Tlv{.tag = tag, .value = ToString(value)});
    return absl::OkStatus();
  }));
  return row;
}

namespace {

// A row of the `state` family: u8 version, the fields, u64 hash. Its length must be exactly 9 + `field_bytes`.
absl::StatusOr<ByteReader> OpenStateRow(const char* what, std::span<const std::byte> bytes, size_t field_bytes) {
  TS_ASSIGN_OR_RETURN(const auto body, VerifyHash(what, bytes));
  ByteReader reader(body);
  const auto version = reader.Little<uint8_t>();
  if (!version) return TooShort(what, 1, 0);
  if (*version != kVersion) return OutOfRange(what, *version, kVersion);
  if (reader.rest().size() != field_bytes) {
    return absl::DataLossError(
        absl::StrCat(what, " has ", reader.rest().size(), " bytes of fields, not ", field_bytes));
  }
  return reader;
}

Uuid ReadUuid(ByteReader* reader) {
  Uuid uuid;
  std::memcpy(uuid.data(), reader->Bytes(uuid.size())->data(), uuid.size());
  return uuid;
}

template <typename Fill>
std::string StateRow(const Fill& fill) {
  std::string out;
  ByteWriter writer(&out);
  writer.Little<uint8_t>(kVersion);
  fill(&writer);
  AppendHash(&out);
  return out;
}

}  // namespace

// FILE ROW: u32 file_id, device_uuid[16], u64 size, u64 data_begin, u64 data_end.
std::string EncodeFileRow(const FileRow& row) {
  return StateRow([&](ByteWriter* writer) {
    writer->Little<uint32_t>(row.file_id);
    writer->Bytes(std::as_bytes(std::span(row.device_uuid)));
    writer->Little<uint64_t>(row.size);
    writer->Little<uint64_t>(row.data_begin);
    writer->Little<uint64_t>(row.data_end);
  });
}

absl::StatusOr<FileRow> DecodeFileRow(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(ByteReader reader, OpenStateRow("file row", bytes, 44));
  FileRow row;
  row.file_id = *reader.Little<uint32_t>();
  row.device_uuid = ReadUuid(&reader);
  row.size = *reader.Little<uint64_t>();
  row.data_begin = *reader.Little<uint64_t>();
  row.data_end = *reader.Little<uint64_t>();
  if (row.data_begin > row.data_end || row.data_end > row.size) {
    return absl::DataLossError(absl::StrCat("file row data area ", row.data_begin, " to ", row.data_end,
                                            " is outside its ", row.size, " bytes"));
  }
  return row;
}

// DEVICE ROW: uuid[16], u32 tier_id, u16 length, tier name.
std::string EncodeDeviceRow(const DeviceRow& row) {
  return StateRow([&](ByteWriter* writer) {
    writer->Bytes(std::as_bytes(std::span(row.uuid)));
    writer->Little<uint32_t>(row.tier_id);
    const std::string name = row.tier_name.substr(0, UINT16_MAX);
    writer->Little<uint16_t>(static_cast<uint16_t>(name.size()));
    writer->Bytes(BytesOf(name));
  });
}

absl::StatusOr<DeviceRow> DecodeDeviceRow(std::span<const std::byte> bytes) {
  constexpr size_t kFixed = 22;
  if (bytes.size() < 1 + kFixed + kHashBytes) return TooShort("device row", 1 + kFixed + kHashBytes, bytes.size());
  TS_ASSIGN_OR_RETURN(ByteReader reader, OpenStateRow("device row", bytes, bytes.size() - 1 - kHashBytes));
  DeviceRow row;
  row.uuid = ReadUuid(&reader);
  row.tier_id = *reader.Little<uint32_t>();
  const uint16_t length = *reader.Little<uint16_t>();
  if (reader.rest().size() != length) return TooShort("device row tier name", length, reader.rest().size());
  row.tier_name = ToString(reader.rest());
  return row;
}

// TUNING ROW: device_uuid[16], u32 io_size, u32 queue_depth, u32 worker_count, u64 read and u64 write bytes a second.
std::string EncodeTuningRow(const TuningRow& row) {
  return StateRow([&](ByteWriter* writer) {
    writer->Bytes(std::as_bytes(std::span(row.device_uuid)));
    writer->Little<uint32_t>(row.io_size);
    writer->Little<uint32_t>(row.queue_depth);
    writer->Little<uint32_t>(row.worker_count);
    writer->Little<uint64_t>(row.read_bytes_per_s);
    writer->Little<uint64_t>(row.write_bytes_per_s);
  });
}

absl::StatusOr<TuningRow> DecodeTuningRow(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(ByteReader reader, OpenStateRow("tuning row", bytes, 44));
  TuningRow row;
  row.device_uuid = ReadUuid(&reader);
  row.io_size = *reader.Little<uint32_t>();
  row.queue_depth = *reader.Little<uint32_t>();
  row.worker_count = *reader.Little<uint32_t>();
  row.read_bytes_per_s = *reader.Little<uint64_t>();
  row.write_bytes_per_s = *reader.Little<uint64_t>();
  const bool usable = row.io_size >= kUnitBytes && row.io_size % kUnitBytes == 0 && row.io_size <= uint32_t{1} << 30 &&
                      row.queue_depth >= 1 && row.queue_depth <= uint32_t{1} << 20 && row.worker_count >= 1 &&
                      row.worker_count <= 256;
  if (!usable) {
    return absl::DataLossError(absl::StrCat("tuning row: no device is driven with ", row.worker_count, " workers, ",
                                            row.queue_depth, " transfers each of ", row.io_size, " bytes"));
  }
  return row;
}

// SUPER ROW: store_uuid[16], u64 compat, u64 ro_compat, u64 incompat, u64 epoch.
std::string EncodeSuperRow(const SuperRow& row) {
  return StateRow([&](ByteWriter* writer) {
    writer->Bytes(std::as_bytes(std::span(row.store_uuid)));
    writer->Little<uint64_t>(row.compat);
    writer->Little<uint64_t>(row.ro_compat);
    writer->Little<uint64_t>(row.incompat);
    writer->Little<uint64_t>(row.epoch);
  });
}

absl::StatusOr<SuperRow> DecodeSuperRow(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(ByteReader reader, OpenStateRow("super row", bytes, 48));
  SuperRow row;
  row.store_uuid = ReadUuid(&reader);
  row.compat = *reader.Little<uint64_t>();
  row.ro_compat = *reader.Little<uint64_t>();
  row.incompat = *reader.Little<uint64_t>();
  row.epoch = *reader.Little<uint64_t>();
  return row;
}

// COMMIT ROW: u64 commit, i64 time_ns.
std::string EncodeCommitRow(const CommitRow& row) {
  return StateRow([&](ByteWriter* writer) {
    writer->Little<uint64_t>(row.commit);
    writer->Little<uint64_t>(static_cast<uint64_t>(row.time_ns));
  });
}

absl::StatusOr<CommitRow> DecodeCommitRow(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(ByteReader reader, OpenStateRow("commit row", bytes, 16));
  CommitRow row;
  row.commit = *reader.Little<uint64_t>();
  row.time_ns = static_cast<int64_t>(*reader.Little<uint64_t>());
  return row;
}

// INLINE COUNT ROW: u64 rows, u64 bytes.
std::string EncodeInlineCountRow(const InlineCountRow& row) {
  return StateRow([&](ByteWriter* writer) {
    writer->Little<uint64_t>(row.rows);
    writer->Little<uint64_t>(row.bytes);
  });
}

absl::StatusOr<InlineCountRow> DecodeInlineCountRow(std::span<const std::byte> bytes) {
  TS_ASSIGN_OR_RETURN(ByteReader reader, OpenStateRow("inline count row", bytes, 16));
  InlineCountRow row;
  row.rows = *reader.Little<uint64_t>();
  row.bytes = *reader.Little<uint64_t>();
  return row;
}

std::string EncodeSumsRow(std::span<const uint64_t> sums) {
  TS_CHECK(sums.size() <= kSumsPerRow);
  std::string out;
  out.reserve(sums.size_bytes() + kHashBytes);
  ByteWriter(&out).Bytes(std::as_bytes(sums));
  AppendHash(&out);
  return out;
}

absl::StatusOr<std::vector<uint64_t>> DecodeSumsRow(std::span<const std::byte> bytes) {
  if (bytes.size() % 8 != 0)
    return absl::DataLossError(absl::StrCat("sums row has ", bytes.size(), " bytes, a multiple of 8"));
  TS_ASSIGN_OR_RETURN(const auto body, VerifyHash("sums row", bytes));
  if (body.size() > kSumsPerRow * 8) return OutOfRange("sums row bytes", body.size(), kSumsPerRow * 8);
  std::vector<uint64_t> sums(body.size() / 8);
  if (!sums.empty()) std::memcpy(sums.data(), body.data(), body.size());
  return sums;
}

// INLINE ROW: record, payload, u64 XXH3-64 of the payload. The payload has as many bytes as the record's stored_bytes,
// and that tells where the record ends.
absl::StatusOr<std::string> EncodeInlineRow(const ObjectRecord& record, std::span<const std::byte> payload) {
  if (record.stored_bytes != payload.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("inline object of ", payload.size(), " bytes, its record says ", record.stored_bytes));
  }
  TS_ASSIGN_OR_RETURN(std::string out, EncodeRecord(record));
  ByteWriter writer(&out);
  writer.Bytes(payload);
  writer.Little<uint64_t>(Hash64(payload));
  return out;
}

absl::StatusOr<InlineRow> DecodeInlineRow(std::span<const std::byte> bytes) {
  constexpr size_t kLeast = kRecordHeaderBytes + 2 * kHashBytes;
  if (bytes.size() < kLeast) return TooShort("inline row", kLeast, bytes.size());
  const uint64_t payload_bytes = LoadLittle<uint64_t>(bytes.data() + kStoredBytesAt);
  if (payload_bytes > bytes.size() - kLeast)
    return TooShort("inline row payload", payload_bytes, bytes.size() - kLeast);
  const auto record_bytes = bytes.first(bytes.size() - kHashBytes - payload_bytes);
  TS_ASSIGN_OR_RETURN(ObjectRecord record, DecodeRecord(record_bytes));
  TS_ASSIGN_OR_RETURN(const auto payload, VerifyHash("inline row payload", bytes.subspan(record_bytes.size())));
  return InlineRow{.record = std::move(record), .payload = ToString(payload)};
}

std::string NameKey(const std::string& name) {
  std::string key;
  key.reserve(1 + name.size());
  key.push_back(static_cast<char>(kUserNamespace));
  key.append(name);
  return key;
}

std::string GenerationKey(uint64_t generation) {
  std::string key;
  ByteWriter(&key).Big<uint64_t>(generation);
  return key;
}

std::string SumsKey(uint64_t generation, uint32_t row) {
  std::string key;
  ByteWriter writer(&key);
  writer.Big<uint64_t>(generation);
  writer.Big<uint32_t>(row);
  return key;
}

}  // namespace tensorshelf
