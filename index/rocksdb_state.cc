#include "index/rocksdb_state.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "index/rocksdb_options.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

absl::Status BadKeyError(const char* prefix) {
  return absl::DataLossError(absl::StrCat("a key of the index's state rows \"", prefix, "\" does not fit its row"));
}

}  // namespace

StateReader::StateReader(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* state, const rocksdb::Snapshot* snapshot)
    : db_(db), state_(state) {
  options_.snapshot = snapshot;
}

absl::StatusOr<std::optional<std::string>> StateReader::Get(const char* key) const {
  std::string value;
  const rocksdb::Status status = db_->Get(options_, state_, key, &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return FromRocksDb(status, absl::StrCat("index: reading \"", key, "\""));
  return value;
}

absl::Status StateReader::Scan(const char* prefix, const Visit& visit) const {
  const std::string end = AfterPrefix(prefix);
  const rocksdb::Slice upper(end);
  rocksdb::ReadOptions options = options_;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator(options, state_));
  const size_t prefix_bytes = std::strlen(prefix);
  for (rows->Seek(prefix); rows->Valid(); rows->Next()) {
    rocksdb::Slice suffix = rows->key();
    suffix.remove_prefix(prefix_bytes);
    TS_RETURN_IF_ERROR(visit(BytesOf(suffix), BytesOf(rows->value())));
  }
  return FromRocksDb(rows->status(), absl::StrCat("index: reading \"", prefix, "\""));
}

absl::StatusOr<std::optional<SuperRow>> StateReader::Super() const {
  TS_ASSIGN_OR_RETURN(const auto value, Get(kSuperKey));
  if (!value) return std::nullopt;
  TS_ASSIGN_OR_RETURN(SuperRow row, DecodeSuperRow(BytesOf(*value)));
  return row;
}

absl::StatusOr<CommitRow> StateReader::Commit() const {
  TS_ASSIGN_OR_RETURN(const auto value, Get(kCommitKey));
  if (!value) return CommitRow{};
  return DecodeCommitRow(BytesOf(*value));
}

absl::StatusOr<InlineCountRow> StateReader::InlineCount() const {
  TS_ASSIGN_OR_RETURN(const auto value, Get(kInlineCountKey));
  if (!value) return InlineCountRow{};
  return DecodeInlineCountRow(BytesOf(*value));
}

absl::StatusOr<std::vector<FileRow>> StateReader::Files() const {
  std::vector<FileRow> files;
  TS_RETURN_IF_ERROR(Scan(kFilePrefix, [&](std::span<const std::byte> suffix, std::span<const std::byte> value) {
    TS_ASSIGN_OR_RETURN(const FileRow row, DecodeFileRow(value));
    if (suffix.size() != 4 || ByteReader(suffix).Big<uint32_t>() != row.file_id) return BadKeyError(kFilePrefix);
    files.push_back(row);
    return absl::OkStatus();
  }));
  return files;
}

absl::StatusOr<std::vector<DeviceRow>> StateReader::Devices() const {
  std::vector<DeviceRow> devices;
  TS_RETURN_IF_ERROR(Scan(kDevicePrefix, [&](std::span<const std::byte> suffix, std::span<const std::byte> value) {
    TS_ASSIGN_OR_RETURN(const DeviceRow row, DecodeDeviceRow(value));
    if (suffix.size() != row.uuid.size() || std::memcmp(suffix.data(), row.uuid.data(), suffix.size()) != 0) {
      return BadKeyError(kDevicePrefix);
    }
    devices.push_back(row);
    return absl::OkStatus();
  }));
  return devices;
}

absl::StatusOr<std::vector<TuningRow>> StateReader::Tunings() const {
  std::vector<TuningRow> tunings;
  TS_RETURN_IF_ERROR(Scan(kTuningPrefix, [&](std::span<const std::byte> suffix, std::span<const std::byte> value) {
    TS_ASSIGN_OR_RETURN(const TuningRow row, DecodeTuningRow(value));
    if (!std::ranges::equal(suffix, std::as_bytes(std::span(row.device_uuid)))) return BadKeyError(kTuningPrefix);
    tunings.push_back(row);
    return absl::OkStatus();
  }));
  return tunings;
}

// FSYNC ROW: u64 slot_seq.
absl::StatusOr<std::vector<std::pair<uint32_t, uint64_t>>> StateReader::FsyncSlots() const {
  std::vector<std::pair<uint32_t, uint64_t>> slots;
  TS_RETURN_IF_ERROR(Scan(kFsyncPrefix, [&](std::span<const std::byte> suffix, std::span<const std::byte> value) {
    if (suffix.size() != 4 || value.size() != 8) return BadKeyError(kFsyncPrefix);
    slots.emplace_back(*ByteReader(suffix).Big<uint32_t>(), LoadLittle<uint64_t>(value.data()));
    return absl::OkStatus();
  }));
  return slots;
}

// BAD UNITS ROW: u32 units.
absl::StatusOr<std::vector<Extent>> StateReader::BadUnits() const {
  std::vector<Extent> extents;
  TS_RETURN_IF_ERROR(Scan(kBadPrefix, [&](std::span<const std::byte> suffix, std::span<const std::byte> value) {
    if (suffix.size() != 12 || value.size() != 4) return BadKeyError(kBadPrefix);
    ByteReader key(suffix);
    Extent extent;
    extent.file_id = *key.Big<uint32_t>();
    extent.first_unit = *key.Big<uint64_t>();
    extent.units = LoadLittle<uint32_t>(value.data());
    extents.push_back(extent);
    return absl::OkStatus();
  }));
  return extents;
}

}  // namespace tensorshelf
