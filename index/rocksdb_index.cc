#include "index/rocksdb_index.h"

#include <rocksdb/write_batch.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "index/rocksdb_batch.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kBatchBytesMax = uint64_t{1} << 30;

}  // namespace

RocksDbHandles::~RocksDbHandles() {
  if (db == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* family : families) db->DestroyColumnFamilyHandle(family);
}

// Thread-safe. Outlived by the index.
class RocksDbSnapshot : public IndexSnapshot {
 public:
  RocksDbSnapshot(RocksDbIndex* index, const rocksdb::Snapshot* snapshot, uint64_t commit)
      : index_(index), snapshot_(snapshot), commit_(commit) {}
  ~RocksDbSnapshot() override {
    if (snapshot_ != nullptr) index_->handles_.db->ReleaseSnapshot(snapshot_);
    index_->snapshots_.fetch_sub(1, std::memory_order_release);
  }
  uint64_t commit() const override { return commit_; }
  const rocksdb::Snapshot* snapshot() const { return snapshot_; }

 private:
  RocksDbIndex* const index_;
  const rocksdb::Snapshot* const snapshot_;  // null: the mode has none
  const uint64_t commit_;
};

RocksDbIndex::RocksDbIndex(std::string path, Mode mode, const IndexOptions& options,
                           std::unique_ptr<RocksDbSurroundings> surroundings, RocksDbHandles handles, CommitRow newest)
    : path_(std::move(path)),
      mode_(mode),
      surroundings_(std::move(surroundings)),
      handles_(std::move(handles)),
      memtable_bytes_(options.memtable_bytes),
      cache_(options.record_cache_bytes),
      newest_commit_(newest.commit) {}

RocksDbIndex::~RocksDbIndex() { TS_CHECK(snapshots_.load(std::memory_order_acquire) == 0); }

absl::Status RocksDbIndex::Failed(const rocksdb::Status& status, const std::string& doing) const {
  return FromRocksDb(status, absl::StrCat("index ", path_, ": ", doing));
}

const rocksdb::Snapshot* RocksDbIndex::OptionOf(const IndexSnapshot* snapshot) const {
  return snapshot == nullptr ? nullptr : static_cast<const RocksDbSnapshot*>(snapshot)->snapshot();
}

StateReader RocksDbIndex::State() const { return StateReader(handles_.db.get(), handles_.of(Family::kState), nullptr); }

absl::StatusOr<std::optional<SuperRow>> RocksDbIndex::ReadSuper() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().Super();
}
absl::StatusOr<CommitRow> RocksDbIndex::ReadCommit() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().Commit();
}
absl::StatusOr<std::vector<FileRow>> RocksDbIndex::ReadFiles() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().Files();
}
absl::StatusOr<std::vector<DeviceRow>> RocksDbIndex::ReadDevices() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().Devices();
}
absl::StatusOr<std::vector<TuningRow>> RocksDbIndex::ReadTunings() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().Tunings();
}
absl::StatusOr<std::vector<std::pair<uint32_t, uint64_t>>> RocksDbIndex::ReadFsyncSlots() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().FsyncSlots();
}
absl::StatusOr<std::vector<Extent>> RocksDbIndex::ReadBadUnits() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().BadUnits();
}
absl::StatusOr<InlineCountRow> RocksDbIndex::ReadInlineCount() {
  absl::ReaderMutexLock lock(&view_mutex_);
  return State().InlineCount();
}

absl::Status RocksDbIndex::CheckWritable() const {
  if (mode_ != Mode::kReadWrite && mode_ != Mode::kCreate) {
    return absl::FailedPreconditionError(absl::StrCat("index ", path_, " is open for reading"));
  }
  if (const uint64_t failed = failed_commit_.load(std::memory_order_acquire); failed != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("index ", path_, ": the outcome of commit ", failed, " is unknown; open the index again"));
  }
  return absl::OkStatus();
}

std::unique_ptr<CommitBatch> RocksDbIndex::NewBatch() { return std::make_unique<RocksDbBatch>(this); }

absl::Status RocksDbIndex::Commit(CommitBatch& batch, uint64_t commit) {
  TS_RETURN_IF_ERROR(CheckWritable());
  auto& rows = static_cast<RocksDbBatch&>(batch);
  if (rows.size_bytes() > kBatchBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("commit ", commit, " has ", rows.size_bytes(), " bytes of index rows, at most ", kBatchBytesMax));
  }
  if (const uint64_t newest = newest_commit_.load(std::memory_order_relaxed); commit <= newest) {
    return absl::InvalidArgumentError(absl::StrCat("commit ", commit, " after commit ", newest));
  }
  TS_RETURN_IF_ERROR(rows.Complete(
      CommitRow{.commit = commit,
                .time_ns = std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count()}));
  rocksdb::WriteOptions options;
  options.sync = !TS_MUTATE(unsynced_log);
  const rocksdb::Status status = handles_.db->Write(options, rows.rows());
  // Also after an error: some rows may be visible.
  for (const auto& [name, row] : rows.names()) {
    if (!TS_MUTATE(stale_record_cache)) cache_.names().Invalidate(name);
  }
  for (const uint64_t generation : rows.generations()) {
    if (!TS_MUTATE(stale_record_cache)) cache_.records().Invalidate(generation);
  }
  if (!status.ok()) {
    if (!TS_MUTATE(reuse_after_log_error)) failed_commit_.store(commit, std::memory_order_release);
    // Never ResourceExhausted, which promises that nothing was written.
    return absl::InternalError(
        absl::StrCat("index ", path_, ": commit ", commit, " failed, its outcome is unknown: ", status.ToString()));
  }
  newest_commit_.store(commit, std::memory_order_relaxed);
  commits_.fetch_add(1, std::memory_order_relaxed);
  // A batch is one write of the log, whatever its size: have it written to files now, or the next open replays it.
  if (rows.size_bytes() > memtable_bytes_) FlushInBackground();
  return absl::OkStatus();
}

void RocksDbIndex::FlushInBackground() {
  rocksdb::FlushOptions options;
  options.wait = false;
  options.allow_write_stall = true;
  // An error shows at the next commit; the rows are safe in the log.
  handles_.db->Flush(options, handles_.families).PermitUncheckedError();
}

std::unique_ptr<IndexSnapshot> RocksDbIndex::NewSnapshot() {
  absl::ReaderMutexLock lock(&view_mutex_);
  snapshots_.fetch_add(1, std::memory_order_relaxed);
  const bool changes = mode_ == Mode::kReadWrite || mode_ == Mode::kCreate;
  const rocksdb::Snapshot* snapshot = changes ? handles_.db->GetSnapshot() : nullptr;
  const auto commit = StateReader(handles_.db.get(), handles_.of(Family::kState), snapshot).Commit();
  // A commit row that cannot be read makes every open fail; here it is worth no error path of its own.
  return std::make_unique<RocksDbSnapshot>(this, snapshot, commit.ok() ? commit->commit : 0);
}

absl::Status RocksDbIndex::CatchUp() {
  if (mode_ != Mode::kBesideWriter) return absl::OkStatus();
  absl::WriterMutexLock lock(&view_mutex_);
  if (snapshots_.load(std::memory_order_acquire) != 0) {
    return absl::UnavailableError(absl::StrCat("index ", path_, " cannot follow its writer while a snapshot is held"));
  }
  absl::Status status = FollowWriter(*handles_.db, *surroundings_->file_system, path_);
  cache_.Clear();
  return status;
}

absl::Status RocksDbIndex::Flush() {
  TS_RETURN_IF_ERROR(CheckWritable());
  return Failed(handles_.db->Flush(rocksdb::FlushOptions(), handles_.families), "writing memtables");
}

absl::Status RocksDbIndex::VerifyFiles() {
  rocksdb::ReadOptions options;
  options.readahead_size = 2 << 20;
  options.fill_cache = false;
  return Failed(handles_.db->VerifyChecksum(options), "verifying its files");
}

Index::Stats RocksDbIndex::stats() const {
  Stats stats;
  const auto names = cache_.names().counts();
  const auto records = cache_.records().counts();
  stats.cache_hits = records.hits;
  stats.cache_misses = records.misses;
  stats.cache_bytes = names.bytes + records.bytes;
  for (const char* property : {"rocksdb.cur-size-all-mem-tables", "rocksdb.estimate-table-readers-mem"}) {
    uint64_t bytes = 0;
    if (handles_.db->GetAggregatedIntProperty(property, &bytes)) stats.memory_bytes += bytes;
  }
  stats.memory_bytes += surroundings_->block_cache->GetUsage();
  std::vector<std::string> children;
  const rocksdb::IOOptions io;
  if (surroundings_->file_system->GetChildren(path_, io, &children, nullptr).ok()) {
    for (const std::string& child : children) {
      uint64_t bytes = 0;
      if (surroundings_->file_system->GetFileSize(absl::StrCat(path_, "/", child), io, &bytes, nullptr).ok()) {
        stats.file_bytes += bytes;
      }
    }
  }
  stats.commits = commits_.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace tensorshelf
