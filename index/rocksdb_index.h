// The Index on RocksDB; index/index.h has the contract. Internal to index/.

#ifndef TENSORSHELF_INDEX_ROCKSDB_INDEX_H_
#define TENSORSHELF_INDEX_ROCKSDB_INDEX_H_

#include <rocksdb/db.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "index/index.h"
#include "index/record_cache.h"
#include "index/rocksdb_options.h"
#include "index/rocksdb_state.h"

namespace tensorshelf {

// An open database with its families. Closes both when destroyed.
struct RocksDbHandles {
  RocksDbHandles() = default;
  RocksDbHandles(RocksDbHandles&& other) noexcept
      : db(std::move(other.db)), families(std::exchange(other.families, {})) {}
  RocksDbHandles& operator=(RocksDbHandles&&) = delete;
  ~RocksDbHandles();

  rocksdb::ColumnFamilyHandle* of(Family family) const { return families[static_cast<size_t>(family)]; }

  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> families;
};

// Brings a secondary up to the writer's commits, without a hole. Unavailable: the writer's files changed too often
// meanwhile.
absl::Status FollowWriter(rocksdb::DB& secondary, rocksdb::FileSystem& file_system, const std::string& path);

// Thread-safe, but for Commit.
class RocksDbIndex : public Index {
 public:
  // `surroundings` outlive the database in `handles`.
  RocksDbIndex(std::string path, Mode mode, const IndexOptions& options,
               std::unique_ptr<RocksDbSurroundings> surroundings, RocksDbHandles handles, CommitRow newest);
  ~RocksDbIndex() override;

  absl::StatusOr<FoundObject> FindObject(const std::string& name, const IndexSnapshot* snapshot) override;
  absl::StatusOr<std::optional<NameRow>> FindName(const std::string& name, const IndexSnapshot* snapshot) override;
  absl::StatusOr<std::shared_ptr<const ObjectRecord>> FindRecord(uint64_t generation, bool is_inline) override;
  absl::Status ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out,
                        const IndexSnapshot* snapshot) override;
  absl::Status ScanNames(const std::string& prefix, const std::string& start,
                         const std::function<bool(const std::string& name, const NameRow& row)>& visit,
                         const IndexSnapshot* snapshot) override;
  absl::Status ScanObjects(
      uint64_t first_generation, uint64_t end_generation,
      const std::function<bool(uint64_t generation, std::span<const std::byte> row)>& visit) override;

  std::unique_ptr<ObjectCursor> NewCursor(const std::string& prefix, const std::string& start) override;
  absl::Status ScanRows(
      IndexFamily family,
      const std::function<bool(std::span<const std::byte> key, std::span<const std::byte> value)>& visit) override;

  absl::StatusOr<std::optional<SuperRow>> ReadSuper() override;
  absl::StatusOr<CommitRow> ReadCommit() override;
  absl::StatusOr<std::vector<FileRow>> ReadFiles() override;
  absl::StatusOr<std::vector<DeviceRow>> ReadDevices() override;
  absl::StatusOr<std::vector<TuningRow>> ReadTunings() override;
  absl::StatusOr<std::vector<std::pair<uint32_t, uint64_t>>> ReadFsyncSlots() override;
  absl::StatusOr<std::vector<Extent>> ReadBadUnits() override;
  absl::StatusOr<InlineCountRow> ReadInlineCount() override;

  std::unique_ptr<CommitBatch> NewBatch() override;
  absl::Status Commit(CommitBatch& batch, uint64_t commit) override;
  std::unique_ptr<IndexSnapshot> NewSnapshot() override;
  absl::Status CatchUp() override;
  absl::Status Flush() override;
  absl::Status VerifyFiles() override;
  absl::Status Backup(const std::string& destination) override;
  Stats stats() const override;

  // For the batch, which reads below its own rows. The family and the database live as long as this index.
  const RocksDbHandles& handles() const { return handles_; }

 private:
  friend class RocksDbCursor;
  friend class RocksDbSnapshot;

  absl::Status CheckWritable() const;
  // Names what failed and where.
  absl::Status Failed(const rocksdb::Status& status, const std::string& doing) const;
  void FlushInBackground();

  // Null where the mode has no snapshots: a read-only database does not change, a secondary only in CatchUp.
  const rocksdb::Snapshot* OptionOf(const IndexSnapshot* snapshot) const;

  absl::StatusOr<std::optional<NameRow>> ReadName(const std::string& name, const rocksdb::Snapshot* snapshot)
      ABSL_SHARED_LOCKS_REQUIRED(view_mutex_);
  // Null record: there is no such row.
  absl::StatusOr<CachedRecord> ReadRecord(uint64_t generation, bool is_inline, const rocksdb::Snapshot* snapshot)
      ABSL_SHARED_LOCKS_REQUIRED(view_mutex_);
  absl::StatusOr<FoundObject> ReadObject(const std::string& name, const rocksdb::Snapshot* snapshot)
      ABSL_SHARED_LOCKS_REQUIRED(view_mutex_);
  absl::StatusOr<std::optional<NameRow>> NameThroughCache(const std::string& name) ABSL_LOCKS_EXCLUDED(view_mutex_);
  absl::StatusOr<CachedRecord> RecordThroughCache(uint64_t generation, bool is_inline) ABSL_LOCKS_EXCLUDED(view_mutex_);
  StateReader State() const ABSL_SHARED_LOCKS_REQUIRED(view_mutex_);

  std::unique_ptr<rocksdb::Iterator> NewIterator(const rocksdb::ReadOptions& options, Family family)
      ABSL_LOCKS_EXCLUDED(view_mutex_);

  // Constant after construction. Declared in the order in which they may go: the database before what it uses.
  const std::string path_;
  const Mode mode_;
  const std::unique_ptr<RocksDbSurroundings> surroundings_;
  const RocksDbHandles handles_;
  const uint64_t memtable_bytes_;

  // Synchronises itself.
  mutable RecordCache cache_;
  std::atomic<uint64_t> commits_{0};
  // The commit whose outcome is unknown; 0: none. Set once, by the committing thread.
  std::atomic<uint64_t> failed_commit_{0};
  std::atomic<uint64_t> newest_commit_;  // of Commit or the open; written by the committing thread

  // Shared around the reads of one answer, exclusive while a secondary catches up: it then drops old versions, and its
  // reads know no RocksDB snapshots. Lock order: before the cache's.
  absl::Mutex view_mutex_;
  std::atomic<uint64_t> snapshots_{0};  // held; raised under the shared lock
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_ROCKSDB_INDEX_H_
