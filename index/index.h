// Remembers names and records in RocksDB, and answers for what it remembers. No data I/O, no space, no policy.
//
// Layout (column families, keys, values): store/FORMAT.md, "Index". Every Commit is one synced WriteBatch: all of it or
// none of it is there after a crash. RocksDB is named only in index/rocksdb_*.cc; its statuses never leave this folder.

#ifndef TENSORSHELF_INDEX_INDEX_H_
#define TENSORSHELF_INDEX_INDEX_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/record.h"

namespace tensorshelf {

// One file operation of the index's RocksDB, seen by IndexFileObserver in the order in which it happens.
struct IndexFileOp {
  enum class Kind {
    kCreate,
    kAppend,
    kSync,
    kRename,
    kLink,
    kDelete,
    kTruncate,
    kMakeDirectory,
    kSyncDirectory,
    kRead
  };
  Kind kind = Kind::kAppend;
  std::string path;
  std::string target = {};               // kRename, kLink
  uint64_t offset = 0;                   // kAppend, kRead; the new size for kTruncate
  std::span<const std::byte> data = {};  // kAppend; valid during the call
};

// Fault injection and tracing. Called from RocksDB's threads, possibly at once; must be thread-safe.
class IndexFileObserver {
 public:
  virtual ~IndexFileObserver() = default;
  // A bad status is returned to RocksDB as an I/O error (ResourceExhausted as "no space") and the operation is not
  // done.
  virtual absl::Status Before(const IndexFileOp&) { return absl::OkStatus(); }
  // After the operation succeeded.
  virtual void After(const IndexFileOp&) {}
};

struct IndexOptions {
  uint64_t record_cache_bytes = uint64_t{64} << 20;  // decoded records kept in memory
  uint64_t block_cache_bytes = uint64_t{32} << 20;
  uint64_t memtable_bytes = uint64_t{16} << 20;  // bounds the WAL that an open has to replay
  IndexFileObserver* observer = nullptr;         // not owned; must outlive the index
};

// The number in the "commit" row that a read-only open in one of RocksDB's recovery modes sees, and the "fsync/" rows.
struct IndexProbe {
  bool exists = false;  // false: no RocksDB there (CURRENT is missing)
  std::optional<SuperRow> super;
  CommitRow commit;
  std::vector<FileRow> files;
  std::vector<DeviceRow> devices;
  std::vector<std::pair<uint32_t, uint64_t>> fsync_slots;  // file_id -> slot_seq that a durable commit relied on
};
enum class ProbeMode { kPointInTime, kSkipCorruptedRecords };
// Opens nothing for writing and changes nothing on disk. DataLoss when RocksDB refuses.
absl::StatusOr<IndexProbe> ProbeIndex(const std::string& path, ProbeMode mode, const IndexOptions& options);

// The families whose rows ScanRows and DeleteRow name.
enum class IndexFamily { kNames, kObjects, kSums, kInline, kState };

// The changes of one commit, in order, with reads that see them. Confined to one thread (the commit thread).
class CommitBatch {
 public:
  virtual ~CommitBatch() = default;

  // Sees the batch over the index.
  virtual absl::StatusOr<std::optional<NameRow>> FindName(const std::string& name) const = 0;
  // In byte order, batch over index; stops when `visit` returns false. The batch must not change inside `visit`.
  virtual absl::Status ScanNames(
      const std::string& prefix,
      const std::function<bool(const std::string& name, const NameRow& row)>& visit) const = 0;

  virtual void PutName(const std::string& name, const NameRow& row) = 0;
  virtual void DeleteName(const std::string& name) = 0;

  // Puts the record and its sums rows (`sums` is the full list when it is longer than kSumsInRecordMax, else empty:
  // then the record's own TLV holds them).
  virtual absl::Status PutObject(const ObjectRecord& record, std::span<const uint64_t> sums) = 0;
  virtual absl::Status PutInlineObject(const ObjectRecord& record, std::span<const std::byte> payload) = 0;
  virtual void DeleteObject(const ObjectRecord& record) = 0;  // with its sums rows, or its inline row
  virtual void DeleteObject(uint64_t generation) = 0;         // an undecodable or unknown record; sums rows by range

  virtual void PutSuper(const SuperRow& row) = 0;
  virtual void PutFile(const FileRow& row) = 0;
  virtual void DeleteFile(uint32_t file_id) = 0;  // and its bad units
  virtual void PutDevice(const DeviceRow& row) = 0;
  virtual void DeleteDevice(const Uuid& uuid) = 0;  // and its tuning
  virtual void PutTuning(const TuningRow& row) = 0;
  virtual void PutFsyncSlot(uint32_t file_id, uint64_t slot_seq) = 0;
  virtual void PutInlineCount(const InlineCountRow& row) = 0;
  virtual void PutBadUnits(const Extent& extent) = 0;
  // For repairs: any row, by its key. FindName and ScanNames of this batch do not see it.
  virtual void DeleteRow(IndexFamily family, std::span<const std::byte> key) = 0;

  virtual uint64_t size_bytes() const = 0;
  // A point to return to when one request of a group is refused. Only the newest may be rolled back to or dropped.
  virtual void SetSavePoint() = 0;
  virtual void RollbackToSavePoint() = 0;
  virtual void DropSavePoint() = 0;
};

// A consistent view of the index at one moment. Thread-safe. Must be destroyed before the Index.
class IndexSnapshot {
 public:
  virtual ~IndexSnapshot() = default;
  virtual uint64_t commit() const = 0;  // the "commit" row that it sees
};

// Names in byte order with their records, all as of one moment. Memory is bounded, whatever the number of names.
// Thread-compatible. Must be destroyed before the Index.
class ObjectCursor {
 public:
  virtual ~ObjectCursor() = default;
  // Moves to the next name, at first to the first one; false at the end. After an error no name can be read any more.
  virtual absl::StatusOr<bool> Next() = 0;

  // Of the name that Next moved to, valid until it is called again.
  virtual const std::string& name() const = 0;
  virtual uint64_t generation() const = 0;  // 0: the name's row is damaged
  // Of the name's record: DataLoss when it is missing or damaged, Unimplemented when it needs a newer version.
  virtual const absl::Status& status() const = 0;
  virtual const ObjectRecord& record() const = 0;  // when status() is OK
};

// What FindObject answers.
struct FoundObject {
  uint64_t generation = 0;
  std::shared_ptr<const ObjectRecord> record;
  std::shared_ptr<const std::string> payload;  // inline objects only
};

// Thread-safe, but for Commit, which one thread at a time may call.
class Index {
 public:
  enum class Mode {
    kReadWrite,     // the only opener that writes; recovers the WAL (PointInTime)
    kCreate,        // a new, empty one; AlreadyExists if there is one
    kReadOnly,      // nobody writes: OpenForReadOnly, PointInTime; changes nothing on disk
    kBesideWriter,  // RocksDB's secondary mode; CatchUp() follows the writer
  };
  // ResourceExhausted: no space; DataLoss: RocksDB finds damage; FailedPrecondition: locked by another process.
  static absl::StatusOr<std::unique_ptr<Index>> Open(const std::string& path, Mode mode, const IndexOptions& options);
  virtual ~Index() = default;

  // name -> generation -> record. NotFound names the name. A cached answer costs below 1 us. Coherent: after Commit
  // returns, no answer is older than that commit. With a snapshot, answers are the snapshot's.
  virtual absl::StatusOr<FoundObject> FindObject(const std::string& name, const IndexSnapshot* snapshot = nullptr) = 0;
  virtual absl::StatusOr<std::optional<NameRow>> FindName(const std::string& name,
                                                          const IndexSnapshot* snapshot = nullptr) = 0;
  virtual absl::StatusOr<std::shared_ptr<const ObjectRecord>> FindRecord(uint64_t generation, bool is_inline) = 0;
  // Sums [first, first + out.size()) of an object whose sums lie in rows. DataLoss: a row is missing or damaged.
  virtual absl::Status ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out,
                                const IndexSnapshot* snapshot = nullptr) = 0;

  // Names in byte order from `start` (inclusive; may be empty) within `prefix`, until `visit` returns false. Streams:
  // constant memory. With an undecodable row: DataLoss, after the rows before it.
  virtual absl::Status ScanNames(const std::string& prefix, const std::string& start,
                                 const std::function<bool(const std::string& name, const NameRow& row)>& visit,
                                 const IndexSnapshot* snapshot = nullptr) = 0;
  // Every row of `objects` as raw bytes, by generation, from `first_generation`; for the open scan, which decodes in
  // parallel.
  virtual absl::Status ScanObjects(
      uint64_t first_generation, uint64_t end_generation,
      const std::function<bool(uint64_t generation, std::span<const std::byte> row)>& visit) = 0;

  // Names from `start` (inclusive; may be empty) within `prefix`. Does not use the record cache.
  virtual std::unique_ptr<ObjectCursor> NewCursor(const std::string& prefix, const std::string& start) = 0;
  // Every row of a family as bytes, in the order of the keys, until `visit` returns false: for checks that go on after
  // a row that does not decode.
  virtual absl::Status ScanRows(
      IndexFamily family,
      const std::function<bool(std::span<const std::byte> key, std::span<const std::byte> value)>& visit) = 0;

  virtual absl::StatusOr<std::optional<SuperRow>> ReadSuper() = 0;
  virtual absl::StatusOr<CommitRow> ReadCommit() = 0;  // {0, 0} when there is none
  virtual absl::StatusOr<std::vector<FileRow>> ReadFiles() = 0;
  virtual absl::StatusOr<std::vector<DeviceRow>> ReadDevices() = 0;
  virtual absl::StatusOr<std::vector<TuningRow>> ReadTunings() = 0;
  virtual absl::StatusOr<std::vector<std::pair<uint32_t, uint64_t>>> ReadFsyncSlots() = 0;
  virtual absl::StatusOr<std::vector<Extent>> ReadBadUnits() = 0;
  virtual absl::StatusOr<InlineCountRow> ReadInlineCount() = 0;

  virtual std::unique_ptr<CommitBatch> NewBatch() = 0;
  // Writes the batch with CommitRow{commit, now}, sync = true. ResourceExhausted before anything was written: the batch
  // is over 1 GiB. Any other error: the outcome is unknown, and the index refuses further commits.
  virtual absl::Status Commit(CommitBatch& batch, uint64_t commit) = 0;

  virtual std::unique_ptr<IndexSnapshot> NewSnapshot() = 0;

  virtual absl::Status CatchUp() = 0;      // kBesideWriter: see the writer's latest commits; else OK
  virtual absl::Status Flush() = 0;        // memtables to files, so that the next open has no WAL to replay
  virtual absl::Status VerifyFiles() = 0;  // every SST block checksum; reads everything
  // An incremental copy (BackupEngine) into directory `destination`, made when absent.
  virtual absl::Status Backup(const std::string& destination) = 0;

  struct Stats {
    uint64_t cache_hits = 0, cache_misses = 0, cache_bytes = 0;
    uint64_t memory_bytes = 0;  // RocksDB's memtables, table readers and block cache
    uint64_t file_bytes = 0;    // on disk
    uint64_t commits = 0;
  };
  virtual Stats stats() const = 0;
};

// Restores the newest backup in `backup_directory` to `index_path`, which must be absent or empty.
absl::Status RestoreIndex(const std::string& backup_directory, const std::string& index_path);

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_INDEX_H_
