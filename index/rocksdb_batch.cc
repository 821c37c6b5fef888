#include "index/rocksdb_batch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "index/rocksdb_index.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kRowsBytesMax = uint64_t{1} << 30;
// More sums rows than this go with one range deletion, which costs every later read of the family a little.
constexpr uint64_t kSingleDeletesMax = 64;

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

uint64_t SumsRows(uint64_t sums_count) { return (sums_count + kSumsPerRow - 1) / kSumsPerRow; }

}  // namespace

RocksDbBatch::RocksDbBatch(RocksDbIndex* index) : index_(index) {}

bool RocksDbBatch::full() const { return rows_.GetDataSize() > kRowsBytesMax; }

void RocksDbBatch::Note(const rocksdb::Status& status) {
  if (!status.ok() && first_error_.ok()) first_error_ = status;
}

void RocksDbBatch::Put(Family family, const std::string& key, const std::string& value) {
  if (full()) {
    skipped_bytes_ += key.size() + value.size();
  } else {
    Note(rows_.Put(index_->handles().of(family), key, value));
  }
}

void RocksDbBatch::Delete(Family family, const std::string& key) {
  if (full()) {
    skipped_bytes_ += key.size();
  } else {
    Note(rows_.Delete(index_->handles().of(family), key));
  }
}

absl::StatusOr<std::optional<NameRow>> RocksDbBatch::FindName(const std::string& name) const {
  if (const auto own = names_.find(name); own != names_.end()) return own->second;
  return index_->FindName(name, nullptr);
}

// A merge: before each name of the index, the batch's own names that come before it; of two equal names the batch's.
absl::Status RocksDbBatch::ScanNames(
    const std::string& prefix, const std::function<bool(const std::string& name, const NameRow& row)>& visit) const {
  auto own = names_.lower_bound(prefix);
  bool wanted = true;
  const auto own_left = [&] { return wanted && own != names_.end() && StartsWith(own->first, prefix); };
  const auto visit_own = [&] {
    if (own->second) wanted = visit(own->first, *own->second);
    ++own;
  };
  TS_RETURN_IF_ERROR(index_->ScanNames(
      prefix, "",
      [&](const std::string& name, const NameRow& row) {
        while (own_left() && own->first < name) visit_own();
        if (!wanted) return false;
        if (own_left() && own->first == name) {
          visit_own();
        } else {
          wanted = visit(name, row);
        }
        return wanted;
      },
      nullptr));
  while (own_left()) visit_own();
  return absl::OkStatus();
}

void RocksDbBatch::SetName(const std::string& name, std::optional<NameRow> row) {
  const auto [entry, is_new] = names_.try_emplace(name);
  if (!save_points_.empty()) {
    Undo& undo = undo_.emplace_back(name, std::nullopt);
    if (!is_new) undo.second.emplace(std::move(entry->second));
  }
  entry->second = std::move(row);
}

void RocksDbBatch::PutName(const std::string& name, const NameRow& row) {
  Put(Family::kNames, NameKey(name), EncodeNameRow(row));
  SetName(name, row);
}

void RocksDbBatch::DeleteName(const std::string& name) {
  Delete(Family::kNames, NameKey(name));
  SetName(name, std::nullopt);
}

absl::Status RocksDbBatch::PutObject(const ObjectRecord& record, std::span<const uint64_t> sums) {
  if (!sums.empty() && (sums.size() <= kSumsInRecordMax || sums.size() != record.sums_count())) {
    return absl::InvalidArgumentError(absl::StrCat("object of ", record.sums_count(), " blocks with ", sums.size(),
                                                   " sums for rows; up to ", kSumsInRecordMax, " are in the record"));
  }
  TS_ASSIGN_OR_RETURN(const std::string row, EncodeRecord(record));
  Put(Family::kObjects, GenerationKey(record.generation), row);
  for (uint32_t i = 0; !sums.empty(); ++i) {
    const auto part = sums.first(std::min(sums.size(), kSumsPerRow));
    Put(Family::kSums, SumsKey(record.generation, i), EncodeSumsRow(part));
    sums = sums.subspan(part.size());
  }
  generations_.push_back(record.generation);
  return absl::OkStatus();
}

absl::Status RocksDbBatch::PutInlineObject(const ObjectRecord& record, std::span<const std::byte> payload) {
  TS_ASSIGN_OR_RETURN(const std::string row, EncodeInlineRow(record, payload));
  Put(Family::kInline, GenerationKey(record.generation), row);
  generations_.push_back(record.generation);
  return absl::OkStatus();
}

void RocksDbBatch::DeleteSums(uint64_t generation, uint64_t rows_count) {
  if (rows_count <= kSingleDeletesMax) {
    for (uint32_t i = 0; i < rows_count; ++i) Delete(Family::kSums, SumsKey(generation, i));
    return;
  }
  Note(rows_.DeleteRange(index_->handles().of(Family::kSums), SumsKey(generation, 0), SumsKey(generation, UINT32_MAX)));
}

void RocksDbBatch::DeleteObject(const ObjectRecord& record) {
  const bool is_inline = record.placement == Placement::kInline;
  Delete(is_inline ? Family::kInline : Family::kObjects, GenerationKey(record.generation));
  if (!is_inline && record.sums_count() > kSumsInRecordMax)
    DeleteSums(record.generation, SumsRows(record.sums_count()));
  generations_.push_back(record.generation);
}

void RocksDbBatch::DeleteObject(uint64_t generation) {
  Delete(Family::kObjects, GenerationKey(generation));
  Delete(Family::kInline, GenerationKey(generation));
  DeleteSums(generation, UINT32_MAX);
  generations_.push_back(generation);
}

void RocksDbBatch::PutSuper(const SuperRow& row) { Put(Family::kState, kSuperKey, EncodeSuperRow(row)); }
void RocksDbBatch::PutFile(const FileRow& row) { Put(Family::kState, FileKey(row.file_id), EncodeFileRow(row)); }
void RocksDbBatch::DeleteFile(uint32_t file_id) {
  Delete(Family::kState, FileKey(file_id));
  Delete(Family::kState, FsyncKey(file_id));
  Note(rows_.DeleteRange(index_->handles().of(Family::kState), BadKey(file_id, 0), BadKey(file_id, UINT64_MAX)));
}
void RocksDbBatch::PutDevice(const DeviceRow& row) { Put(Family::kState, DeviceKey(row.uuid), EncodeDeviceRow(row)); }
void RocksDbBatch::DeleteDevice(const Uuid& uuid) {
  Delete(Family::kState, DeviceKey(uuid));
  Delete(Family::kState, TuningKey(uuid));
}
void RocksDbBatch::PutTuning(const TuningRow& row) {
  Put(Family::kState, TuningKey(row.device_uuid), EncodeTuningRow(row));
}

void RocksDbBatch::PutFsyncSlot(uint32_t file_id, uint64_t slot_seq) {
  std::string value;
  ByteWriter(&value).Little<uint64_t>(slot_seq);
  Put(Family::kState, FsyncKey(file_id), value);
}

void RocksDbBatch::PutInlineCount(const InlineCountRow& row) {
  Put(Family::kState, kInlineCountKey, EncodeInlineCountRow(row));
}

void RocksDbBatch::PutBadUnits(const Extent& extent) {
  std::string value;
  ByteWriter(&value).Little<uint32_t>(extent.units);
  Put(Family::kState, BadKey(extent.file_id, extent.first_unit), value);
}

void RocksDbBatch::DeleteRow(IndexFamily family, std::span<const std::byte> key) {
  Delete(FamilyOf(family), SliceOf(key).ToString());
}

uint64_t RocksDbBatch::size_bytes() const { return rows_.GetDataSize() + skipped_bytes_; }

void RocksDbBatch::SetSavePoint() {
  rows_.SetSavePoint();
  save_points_.push_back(SavePoint{undo_.size(), generations_.size(), skipped_bytes_});
}

void RocksDbBatch::RollbackToSavePoint() {
  TS_CHECK(!save_points_.empty());
  Note(rows_.RollbackToSavePoint());
  const SavePoint point = save_points_.back();
  while (undo_.size() > point.undo_count) {
    auto& [name, before] = undo_.back();
    if (before) {
      names_[name] = *std::move(before);
    } else {
      names_.erase(name);
    }
    undo_.pop_back();
  }
  generations_.resize(point.generations_count);
  skipped_bytes_ = point.skipped_bytes;
  save_points_.pop_back();
}

void RocksDbBatch::DropSavePoint() {
  TS_CHECK(!save_points_.empty());
  Note(rows_.PopSavePoint());
  save_points_.pop_back();
  if (save_points_.empty()) undo_.clear();
}

absl::Status RocksDbBatch::Complete(const CommitRow& row) {
  Put(Family::kState, kCommitKey, EncodeCommitRow(row));
  return FromRocksDb(first_error_, "building the batch");
}

}  // namespace tensorshelf
