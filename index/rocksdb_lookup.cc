// The reads of RocksDbIndex: lookups through the record cache, and scans.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "index/rocksdb_index.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kScanReadaheadBytes = 2 << 20;

rocksdb::ReadOptions At(const rocksdb::Snapshot* snapshot) {
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  return options;
}

absl::Status NoSuchName(const std::string& name) { return absl::NotFoundError(absl::StrCat("no object named ", name)); }

absl::Status CheckReadable(const std::string& name, const NameRow& row) {
  for (const Tlv& tlv : row.tlvs) {
    if (tlv.tag & kTlvCritical) {
      return absl::UnimplementedError(
          absl::StrCat("name ", name, " has a critical part ", absl::Hex(tlv.tag), " that this version does not know"));
    }
  }
  return absl::OkStatus();
}

absl::Status NoRecord(const std::string& name, uint64_t generation) {
  return absl::DataLossError(absl::StrCat("name ", name, " has generation ", generation, ", which has no record"));
}

}  // namespace

absl::StatusOr<std::optional<NameRow>> RocksDbIndex::ReadName(const std::string& name,
                                                              const rocksdb::Snapshot* snapshot) {
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = handles_.db->Get(At(snapshot), handles_.of(Family::kNames), NameKey(name), &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return Failed(status, absl::StrCat("reading name ", name));
  auto row = DecodeNameRow(BytesOf(value));
  if (!row.ok()) return Annotate(row.status(), absl::StrCat("name ", name));
  return std::move(row).value();
}

absl::StatusOr<CachedRecord> RocksDbIndex::ReadRecord(uint64_t generation, bool is_inline,
                                                      const rocksdb::Snapshot* snapshot) {
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = handles_.db->Get(
      At(snapshot), handles_.of(is_inline ? Family::kInline : Family::kObjects), GenerationKey(generation), &value);
  if (status.IsNotFound()) return CachedRecord{};
  if (!status.ok()) return Failed(status, absl::StrCat("reading record ", generation));
  CachedRecord found;
  if (is_inline) {
    auto row = DecodeInlineRow(BytesOf(value));
    if (!row.ok()) return Annotate(row.status(), absl::StrCat("record ", generation));
    found.record = std::make_shared<const ObjectRecord>(std::move(row->record));
    found.payload = std::make_shared<const std::string>(std::move(row->payload));
  } else {
    auto record = DecodeRecord(BytesOf(value));
    if (!record.ok()) return Annotate(record.status(), absl::StrCat("record ", generation));
    found.record = std::make_shared<const ObjectRecord>(std::move(record).value());
  }
  if (found.record->generation != generation) {
    return absl::DataLossError(
        absl::StrCat("record ", generation, " says that it is record ", found.record->generation));
  }
  return found;
}

absl::StatusOr<FoundObject> RocksDbIndex::ReadObject(const std::string& name, const rocksdb::Snapshot* snapshot) {
  TS_ASSIGN_OR_RETURN(const auto row, ReadName(name, snapshot));
  if (!row) return NoSuchName(name);
  TS_RETURN_IF_ERROR(CheckReadable(name, *row));
  TS_ASSIGN_OR_RETURN(CachedRecord found, ReadRecord(row->generation, row->flags & NameRow::kInline, snapshot));
  if (found.record == nullptr) return NoRecord(name, row->generation);
  return FoundObject{row->generation, std::move(found.record), std::move(found.payload)};
}

absl::StatusOr<std::optional<NameRow>> RocksDbIndex::NameThroughCache(const std::string& name) {
  CoherentCache<std::string, NameRow>::Ticket ticket{};
  if (auto cached = cache_.names().Find(name, &ticket)) return cached;
  absl::ReaderMutexLock lock(&view_mutex_);
  TS_ASSIGN_OR_RETURN(auto row, ReadName(name, nullptr));
  if (row) cache_.names().Offer(name, *row, MemoryBytes(*row), ticket);
  return row;
}

absl::StatusOr<CachedRecord> RocksDbIndex::RecordThroughCache(uint64_t generation, bool is_inline) {
  CoherentCache<uint64_t, CachedRecord>::Ticket ticket{};
  if (auto cached = cache_.records().Find(generation, &ticket)) return *std::move(cached);
  absl::ReaderMutexLock lock(&view_mutex_);
  TS_ASSIGN_OR_RETURN(CachedRecord found, ReadRecord(generation, is_inline, nullptr));
  if (found.record != nullptr) cache_.records().Offer(generation, found, MemoryBytes(found), ticket);
  return found;
}

absl::StatusOr<FoundObject> RocksDbIndex::FindObject(const std::string& name, const IndexSnapshot* snapshot) {
  if (snapshot != nullptr) {
    absl::ReaderMutexLock lock(&view_mutex_);
    return ReadObject(name, OptionOf(snapshot));
  }
  TS_ASSIGN_OR_RETURN(const auto row, NameThroughCache(name));
  if (!row) return NoSuchName(name);
  TS_RETURN_IF_ERROR(CheckReadable(name, *row));
  TS_ASSIGN_OR_RETURN(CachedRecord found, RecordThroughCache(row->generation, row->flags & NameRow::kInline));
  if (found.record != nullptr) return FoundObject{row->generation, std::move(found.record), std::move(found.payload)};
  // A commit between the two reads dropped the record together with the name's row. Both from one moment decide.
  const std::unique_ptr<IndexSnapshot> now = NewSnapshot();
  absl::ReaderMutexLock lock(&view_mutex_);
  return ReadObject(name, OptionOf(now.get()));
}

absl::StatusOr<std::optional<NameRow>> RocksDbIndex::FindName(const std::string& name, const IndexSnapshot* snapshot) {
  if (snapshot == nullptr) return NameThroughCache(name);
  absl::ReaderMutexLock lock(&view_mutex_);
  return ReadName(name, OptionOf(snapshot));
}

absl::StatusOr<std::shared_ptr<const ObjectRecord>> RocksDbIndex::FindRecord(uint64_t generation, bool is_inline) {
  TS_ASSIGN_OR_RETURN(CachedRecord found, RecordThroughCache(generation, is_inline));
  if (found.record == nullptr) return absl::NotFoundError(absl::StrCat("no record of generation ", generation));
  return found.record;
}

absl::Status RocksDbIndex::ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out,
                                    const IndexSnapshot* snapshot) {
  absl::ReaderMutexLock lock(&view_mutex_);
  while (!out.empty()) {
    const uint64_t row = first / kSumsPerRow;
    const size_t skip = first % kSumsPerRow;
    const std::string where = absl::StrCat("sums row ", row, " of generation ", generation);
    if (row > UINT32_MAX) return absl::DataLossError(absl::StrCat(where, " is beyond the last possible one"));
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = handles_.db->Get(At(OptionOf(snapshot)), handles_.of(Family::kSums),
                                                    SumsKey(generation, static_cast<uint32_t>(row)), &value);
    if (status.IsNotFound()) return absl::DataLossError(absl::StrCat(where, " is missing"));
    if (!status.ok()) return Failed(status, absl::StrCat("reading ", where));
    const auto sums = DecodeSumsRow(BytesOf(value));
    if (!sums.ok()) return Annotate(sums.status(), where);
    const size_t take = std::min(out.size(), kSumsPerRow - skip);
    if (sums->size() < skip + take) {
      return absl::DataLossError(absl::StrCat(where, " has ", sums->size(), " sums, needs ", skip + take));
    }
    std::copy_n(sums->begin() + skip, take, out.begin());
    out = out.subspan(take);
    first += take;
  }
  return absl::OkStatus();
}

std::unique_ptr<rocksdb::Iterator> RocksDbIndex::NewIterator(const rocksdb::ReadOptions& options, Family family) {
  // Once made, an iterator keeps its own view.
  absl::ReaderMutexLock lock(&view_mutex_);
  return std::unique_ptr<rocksdb::Iterator>(handles_.db->NewIterator(options, handles_.of(family)));
}

absl::Status RocksDbIndex::ScanNames(const std::string& prefix, const std::string& start,
                                     const std::function<bool(const std::string& name, const NameRow& row)>& visit,
                                     const IndexSnapshot* snapshot) {
  const std::string end = AfterPrefix(NameKey(prefix));
  const rocksdb::Slice upper(end);
  rocksdb::ReadOptions options = At(OptionOf(snapshot));
  options.iterate_upper_bound = &upper;
  if (prefix.empty()) {
    options.readahead_size = kScanReadaheadBytes;  // of a small listing RocksDB itself finds the right amount
    options.fill_cache = false;
  }
  const std::unique_ptr<rocksdb::Iterator> rows = NewIterator(options, Family::kNames);
  std::string name;
  for (rows->Seek(NameKey(std::max(prefix, start))); rows->Valid(); rows->Next()) {
    const rocksdb::Slice key = rows->key();
    name.assign(key.data() + 1, key.size() - 1);
    const auto row = DecodeNameRow(BytesOf(rows->value()));
    if (!row.ok()) return Annotate(row.status(), absl::StrCat("name ", name));
    if (!visit(name, *row)) return absl::OkStatus();
  }
  return Failed(rows->status(), "scanning names");
}

absl::Status RocksDbIndex::ScanObjects(
    uint64_t first_generation, uint64_t end_generation,
    const std::function<bool(uint64_t generation, std::span<const std::byte> row)>& visit) {
  const std::string end = GenerationKey(end_generation);
  const rocksdb::Slice upper(end);
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  options.readahead_size = kScanReadaheadBytes;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> rows = NewIterator(options, Family::kObjects);
  for (rows->Seek(GenerationKey(first_generation)); rows->Valid(); rows->Next()) {
    const auto generation = ByteReader(BytesOf(rows->key())).Big<uint64_t>();
    if (!generation || rows->key().size() != 8) {
      return absl::DataLossError(absl::StrCat("a key of an object has ", rows->key().size(), " bytes, not 8"));
    }
    if (!visit(*generation, BytesOf(rows->value()))) return absl::OkStatus();
  }
  return Failed(rows->status(), "scanning objects");
}

}  // namespace tensorshelf
