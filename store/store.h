// A tensor store on preallocated files: the public C++ surface. Start reading here.
//
//   auto store = Store::Open("/nvme/shelf", {});
//   (*store)->Put({.name = "w", .dtype = kFloat32, .shape = {2, 3}, .bytes = bytes});
//   auto object = (*store)->Find("w");
//   (*store)->Read({{.object = &*object, .offset = 0, .to = memory}}, {});
//
// How a put travels (store/FORMAT.md has the bytes and the crash cases):
//   Put -> Transaction: reserve space (extent_allocator.h), write blocks and sums (engine/io_engine.h), write trailers
//       -> commit thread (commit_queue.h): witness slots, fdatasync, one synced index batch, publish, acknowledge
// How a get travels:
//   Find: read guard, index lookup, lease -> Read: engine, verify against the sums -> the lease goes with the Object

#ifndef TENSORSHELF_STORE_STORE_H_
#define TENSORSHELF_STORE_STORE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/io_engine.h"
#include "engine/memory.h"
#include "index/index.h"
#include "index/record.h"
#include "store/errors.h"
#include "store/memory_lease.h"
#include "store/metadata.h"
#include "store/options.h"

namespace tensorshelf {

class Store;
class StoreCore;
struct LivePage;  // store/live_page.h
struct SpaceMap;  // store/space_map.h
// store/move.h, store/compact.h, store/grow_store.h, store/drain.h
struct MoveRequest;
struct MoveResult;
struct CompactOptions;
struct CompactReport;
struct GrowOptions;
struct GrowReport;
struct DrainOptions;
struct DrainReport;

// What must hold of a name when the commit is evaluated; else the whole transaction fails with kPrecondition.
struct Precondition {
  enum class Kind { kNone, kAbsent, kExists, kGeneration };
  Kind kind = Kind::kNone;
  uint64_t generation = 0;
};

// One object to be stored. `bytes` is C-ordered, little-endian; for kTensor its size must be what dtype and shape say.
struct PutItem {
  std::string name;
  ObjectKind kind = ObjectKind::kTensor;
  uint16_t dtype = 0;                     // store/dtype.h; 0 for kBytes
  std::vector<uint64_t> shape = {};       // empty for a scalar and for kBytes
  std::span<const std::byte> bytes = {};  // must not change until the call returns; a change fails the put (kChanged)
  Metadata metadata = {};
  Precondition precondition = {};
  uint8_t block_log2 = kBlockLog2;  // 12: checksum blocks of 4 KiB, for tensors read by small rows; 12..20
  // True: if the name's object has the same fingerprint, nothing is written and the object stays.
  bool skip_unchanged = false;
  // True: never survives a restart, costs no sync and no index row. The name must not be a durable one.
  bool ephemeral = false;
  CacheHint cache = CacheHint::kNone;  // whether the bytes stay in the memory tier as well, once the put is durable
  // Of its writes; of several items of one call, the most urgent one counts for all. Commits are never late for it.
  Priority priority = Priority::kForeground;
};

// A found object and a lease on its bytes: they stay readable until this dies, whatever happens to the name. Movable;
// thread-compatible. May outlive the Store's Close, but then it can no longer be read.
class Object {
 public:
  Object() = default;
  Object(Object&&) noexcept;
  Object& operator=(Object&&) noexcept;
  ~Object();

  const std::string& name() const { return name_; }
  const ObjectRecord& record() const { return *record_; }
  uint64_t size_bytes() const { return record_->logical_bytes; }
  bool ephemeral() const { return ephemeral_; }
  absl::StatusOr<Metadata> metadata() const;

 private:
  friend class StoreCore;
  std::shared_ptr<StoreCore> core_;
  std::string name_;
  std::shared_ptr<const ObjectRecord> record_;
  std::shared_ptr<const std::string> payload_;
  bool leased_ = false;
  bool ephemeral_ = false;
};

// A consistent view of one commit: what was there stays findable and readable. Holds back the reuse of everything that
// is dropped while it lives. Thread-safe; must not outlive the Store.
class View {
 public:
  ~View();
  uint64_t commit() const;

 private:
  friend class StoreCore;
  struct State;
  explicit View(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct ReadRequest {
  const Object* object = nullptr;
  uint64_t offset = 0;           // bytes, in the object
  std::span<std::byte> to = {};  // offset + to.size() <= object->size_bytes()
};

struct ReadOptions {
  // False: bytes are not compared with their sums (reads of whole blocks only save the hashing).
  // Bytes on their way into the memory tier are always compared; those that come from it are not, a second time.
  bool verify = true;
  Priority priority = Priority::kForeground;
  // For the memory tier (StoreOptions::memory_bytes).
  CacheHint cache = CacheHint::kNone;
  AccessOrder order = AccessOrder::kAny;
};

struct CommitResult {
  uint64_t commit = 0;                // the number of the commit; 0 when nothing had to be committed
  std::vector<uint64_t> generations;  // of the put items, in order of the Put calls; an unchanged item's is the old one
  uint64_t names_changed = 0;         // by the name operations
  uint64_t unchanged_count = 0;       // items that skip_unchanged left alone
};

// Many changes, one commit: all are there after a crash or none. Thread-compatible. Destroyed without Commit: nothing
// happened, and the space goes back.
class Transaction {
 public:
  ~Transaction();
  Transaction(Transaction&&) noexcept;

  // Writes the bytes now; they become visible at Commit. On an error none of `items` is part of the transaction.
  absl::Status Put(std::span<const PutItem> items);

  // Name operations: evaluated in order by the commit thread, after the puts that came before them. Errors (NotFound,
  // AlreadyExists) come from Commit and fail the whole transaction.
  void Delete(const std::string& name, bool missing_ok = false);
  void Rename(const std::string& from, const std::string& to, bool replace = false);
  void Clone(const std::string& from, const std::string& to, bool replace = false);
  void DeletePrefix(const std::string& prefix);
  void RenamePrefix(const std::string& from, const std::string& to, bool replace = false);
  void ClonePrefix(const std::string& from, const std::string& to, bool replace = false);
  void Require(const std::string& name, const Precondition& precondition);

  // Returns when everything is durable. May be called once.
  absl::StatusOr<CommitResult> Commit();

 private:
  friend class StoreCore;
  struct State;
  explicit Transaction(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct SpaceBytes {  // the seven states add up to capacity
  uint64_t capacity = 0, reserved = 0, live = 0, parked = 0, free = 0, scratch = 0, limbo = 0, bad = 0;
};

struct FileInfo {
  uint32_t file_id = 0;
  std::string path;  // empty: missing
  Uuid device_uuid{};
  std::string tier;   // of its device, "nvme"; empty: not known
  uint64_t size = 0;  // bytes
  uint64_t data_begin = 0, data_end = 0;
  uint64_t filled_until = 0;  // bytes of the file that have been written at least once
  IoAlignment alignment;
  SpaceBytes space;
  double fragmentation = 0;         // 0 good .. 1 bad
  uint64_t largest_free = 0;        // bytes
  uint64_t witness_commit = 0;      // highest durable_commit found in its slots at open
  bool read_only = false;           // a write error made it so for this process
  std::optional<TuningRow> tuning;  // how its device is best driven, where that was measured
};

struct StoreInfo {
  std::string path;
  Uuid store_uuid{};
  uint32_t format = 1;
  uint64_t compat = 0, ro_compat = 0, incompat = 0;
  uint64_t epoch = 0;
  uint64_t commit = 0;  // the newest that this handle sees
  std::string mode;     // "read-write", "read-only", "beside-writer"
  std::string writer;   // holder text of the lock, empty when nobody writes
  std::vector<FileInfo> files;
  std::vector<std::string> orphan_files;
  bool page_locked = false;
};

struct StoreStats {
  uint64_t names = 0;  // durable and ephemeral; UINT64_MAX when not counted (read-only openers)
  uint64_t objects = 0;
  SpaceBytes space;
  uint64_t leased_objects = 0;
  uint64_t commits = 0, commit_groups = 0, syncs = 0;
  uint64_t puts = 0, put_bytes = 0, unchanged_puts = 0;
  uint64_t reads = 0, read_bytes = 0;  // that succeeded
  uint64_t reread_blocks = 0, corrupt_blocks = 0;
  uint64_t waiting_commits = 0;
  IoEngineStats io;
  MemoryPool::Stats pool;
  MemoryTierStats memory;
  Index::Stats index;
};

struct BlockPosition {
  std::string file;     // path; empty: inline
  uint64_t offset = 0;  // bytes
};

// Thread-safe. Everything that waits may be called from many threads at once; commits of many threads are grouped.
// In a forked child every call fails with kForked, and destruction releases nothing of the parent's.
class Store {
 public:
  // Makes a new store; the directory may exist if it is empty. AlreadyExists: a store or somebody's files are there;
  // InvalidArgument: capacity below the minimum; ResourceExhausted: it does not fit on the disk. On an error nothing is
  // left.
  static absl::Status Create(const std::string& path, const CreateOptions& options);

  // NotFound: no store there (open never creates). kLocked: another writer; the message names it. kLostCommits,
  // kDeviceMissing and DataLoss: see the fields of StoreOptions and tensorshelf fsck. Read-only beside a live writer
  // follows its commits.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& path, const StoreOptions& options);
  ~Store();  // as Close, without the status

  // Finishes every commit that is waiting, writes the witness and the freemap. Twice is fine. Objects stay valid as
  // values, leases and their memory too; when some are out, a notice says so.
  absl::Status Close();

  // Stores durably. Put(items) is one commit.
  absl::StatusOr<CommitResult> Put(std::span<const PutItem> items);
  absl::StatusOr<CommitResult> Put(const PutItem& item) { return Put(std::span(&item, 1)); }
  absl::StatusOr<Transaction> Begin();

  // NotFound names the name.
  absl::StatusOr<Object> Find(const std::string& name, const View* view = nullptr);
  // All of one commit, in order; NotFound names the first missing one.
  absl::StatusOr<std::vector<Object>> FindMany(std::span<const std::string> names, const View* view = nullptr);
  absl::StatusOr<bool> Contains(const std::string& name, const View* view = nullptr);

  // Fills every request or returns the first error; on an error the contents of `to` are unspecified, but bytes that do
  // not match their sums never stay there. Requests that lie together in a file are fetched together.
  absl::Status Read(std::span<const ReadRequest> requests, const ReadOptions& options);

  // Leases of the objects' bytes in the memory tier, in order. What is not there is read into it, with one submission,
  // and fails as Read does. A lease is empty where the tier has no room, or nothing to hold (an object without bytes,
  // or one that lies in the index): Read serves those.
  absl::StatusOr<std::vector<MemoryLease>> Lease(std::span<const Object> objects, const ReadOptions& options);
  // Reads objects into the memory tier in the background, in the order of `names`, behind all other reads, and returns
  // at once. Names that are missing, that do not fit or cannot be read are passed over; beyond 2^20 waiting names the
  // rest is dropped. `options`: cache and order.
  absl::Status Prefetch(std::span<const std::string> names, const ReadOptions& options);
  // Returns when nothing of what was asked for is waiting or under way.
  absl::Status WaitForPrefetch();

  // Names in byte order from `start` (inclusive) within `prefix`, until `visit` returns false. Durable and ephemeral.
  absl::Status Scan(const std::string& prefix, const std::string& start,
                    const std::function<bool(const std::string& name, uint64_t generation)>& visit,
                    const View* view = nullptr);

  absl::StatusOr<std::unique_ptr<View>> NewView();

  // Durable names with their records, from `start` within `prefix`, all of one commit; many times faster than Scan and
  // Find. Beside a writer: of info().commit, unless another call has followed the writer meanwhile. Takes no leases:
  // the objects' bytes may be reused. Must be destroyed before Close.
  absl::StatusOr<std::unique_ptr<ObjectCursor>> NewCursor(const std::string& prefix, const std::string& start);
  // What the index says of the data files' space: reads every record. Extents are found also where a record needs a
  // newer version; a record that does not decode is one of `problems`, with an extent of no units.
  absl::StatusOr<SpaceMap> MapSpace();

  // All block sums of an object, in order.
  absl::StatusOr<std::vector<uint64_t>> ReadSums(const Object& object);
  BlockPosition PositionOf(const Object& object, uint64_t offset) const;

  // Moves objects to other extents, all of `requests` in one commit; result i is of request i. What is put, deleted or
  // moved by somebody else meanwhile wins, without an error.
  absl::StatusOr<std::vector<MoveResult>> Move(std::span<const MoveRequest> requests);
  // Moves objects so that the free space of each file lies in one piece. Others may use the store meanwhile. A dry run
  // moves nothing, and works on a read-only store too.
  absl::StatusOr<CompactReport> Compact(const CompactOptions& options);
  // More capacity while the store is in use; what GrowStore does to a shelf that nobody has open.
  absl::StatusOr<GrowReport> Grow(const GrowOptions& options);
  // Moves everything off one device, given by its directory or the text of its uuid, and takes its files out of the
  // shelf.
  absl::StatusOr<DrainReport> Drain(const std::string& device, const DrainOptions& options);

  // Writes the witness of the last commit, so that nothing acknowledged depends on the index alone.
  absl::Status Flush();
  // An exact, incremental copy of the index (not of the data) into `directory`.
  absl::Status Backup(const std::string& directory);
  // Read-only openers beside a writer: see its newest commits now. Else OK.
  absl::Status CatchUp();

  // Records the operations of the store and the transfers of its devices from now on, the newest `events_max` of them
  // (about 128 bytes each). FailedPrecondition: it does so already.
  absl::Status StartTrace(size_t events_max = size_t{1} << 17);
  // Ends that. The events as JSON in the trace event format of Chrome, for chrome://tracing and ui.perfetto.dev:
  // operations by thread, transfers by device with their bytes and how long they waited in the queue.
  // FailedPrecondition: nothing is recorded.
  absl::StatusOr<std::string> StopTrace();

  const std::string& path() const;
  StoreInfo info() const;
  StoreStats stats() const;
  // All counters with their latencies, of this moment: what a writer shows to other processes in `<path>/counters`.
  // Zeros once the store is closed.
  LivePage live_page() const;
  // OK: other processes can see them. Else why not: a reader, a disk without room.
  absl::Status counters_status() const;
  // Memory for results: page-aligned, huge pages, recycled; reads into it are not copied. Never null; lives as long as
  // any piece of it.
  const std::shared_ptr<MemoryPool>& memory_pool() const;

 private:
  explicit Store(std::shared_ptr<StoreCore> core);
  std::shared_ptr<StoreCore> core_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_STORE_H_
