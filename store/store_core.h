// What is behind a Store: all parts of an open store and their order of life. The public classes in store.h forward
// here.
//
// Order of locks: lifecycle_ (shared by every call, exclusively by Close) -> views_mutex_ -> the parts' own leaves.

#ifndef TENSORSHELF_STORE_STORE_CORE_H_
#define TENSORSHELF_STORE_STORE_CORE_H_

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/foundation/process_id.h"
#include "store/background_fill.h"
#include "store/commit_queue.h"
#include "store/device_set.h"
#include "store/ephemeral_table.h"
#include "store/extent_allocator.h"
#include "store/lease_table.h"
#include "store/live_file.h"
#include "store/memory_tier.h"
#include "store/move_run.h"
#include "store/operation_meters.h"
#include "store/parked_space.h"
#include "store/prefetcher.h"
#include "store/process_identity.h"
#include "store/read_guard.h"
#include "store/reader.h"
#include "store/shelf_files.h"
#include "store/stager.h"
#include "store/store.h"
#include "store/tiered_reader.h"

namespace tensorshelf {

// What a view holds: the index's snapshot and the entry that keeps dropped space from reuse.
struct View::State {
  std::shared_ptr<StoreCore> core;
  std::unique_ptr<IndexSnapshot> snapshot;  // null once the store is closed; guarded by core->views_mutex_
  uint64_t entered = 0;                     // for ReadGuards::LeaveView
  uint64_t commit = 0;
};

struct Transaction::State {
  std::shared_ptr<StoreCore> core;
  CommitRequest request;
  bool committed = false;
  uint64_t staged_bytes = 0;
  uint64_t staged_ns = 0;  // how long its puts took
};

// The path as stored and compared everywhere: absolute, without . and .. and without a slash at the end.
std::string AbsolutePath(const std::string& path);

// Thread-safe. Always owned by a shared_ptr.
class StoreCore : public std::enable_shared_from_this<StoreCore> {
 public:
  static absl::StatusOr<std::shared_ptr<StoreCore>> Open(const std::string& path, const StoreOptions& options);
  ~StoreCore();

  absl::Status Close();

  absl::StatusOr<CommitResult> Put(std::span<const PutItem> items);
  absl::StatusOr<Transaction> Begin();
  absl::Status Stage(Transaction::State& transaction, std::span<const PutItem> items);
  absl::StatusOr<CommitResult> Commit(Transaction::State& transaction);

  absl::StatusOr<Object> Find(const std::string& name, const View* view);
  absl::StatusOr<std::vector<Object>> FindMany(std::span<const std::string> names, const View* view);
  absl::StatusOr<bool> Contains(const std::string& name, const View* view);
  absl::Status Read(std::span<const ReadRequest> requests, const ReadOptions& options);
  absl::StatusOr<std::vector<MemoryLease>> Lease(std::span<const Object> objects, const ReadOptions& options);
  absl::Status Prefetch(std::span<const std::string> names, const ReadOptions& options);
  absl::Status WaitForPrefetch();
  absl::Status Scan(const std::string& prefix, const std::string& start,
                    const std::function<bool(const std::string&, uint64_t)>& visit, const View* view);
  absl::StatusOr<std::unique_ptr<View>> NewView();
  void LeaveView(View::State& view);
  absl::StatusOr<std::unique_ptr<ObjectCursor>> NewCursor(const std::string& prefix, const std::string& start);
  absl::StatusOr<SpaceMap> MapSpace();
  absl::StatusOr<std::vector<uint64_t>> ReadSums(const Object& object);
  BlockPosition PositionOf(const Object& object, uint64_t offset) const;
  absl::StatusOr<std::vector<MoveResult>> Move(std::span<const MoveRequest> requests);
  absl::StatusOr<CompactReport> Compact(const CompactOptions& options);
  absl::StatusOr<GrowReport> Grow(const GrowOptions& options);
  absl::StatusOr<DrainReport> Drain(const std::string& device, const DrainOptions& options);
  absl::Status Flush();
  absl::Status Backup(const std::string& directory);
  absl::Status CatchUp();
  StoreInfo info();
  StoreStats stats();
  LivePage live_page();
  absl::Status counters_status();
  absl::Status StartTrace(size_t events_max);
  absl::StatusOr<std::string> StopTrace();

  void Release(const ObjectRecord& record) { leases_.Release(record.generation, record.place_seq); }
  bool forked() const { return ProcessId() != pid_; }
  const std::string& path() const { return path_; }
  const std::shared_ptr<MemoryPool>& memory_pool() const { return devices_->pool(); }

 private:
  friend class StoreOpener;
  StoreCore() = default;

  absl::Status CheckUsable() const ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status CheckView(const View* view) const;
  absl::Status CheckWritable() const ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::StatusOr<Object> FindLeased(const std::string& name, const View* view) ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  Object MakeObject(const std::string& name, FoundObject found, bool ephemeral);
  absl::StatusOr<CommitResult> CommitUnlocked(CommitRequest& request) ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status PublishEphemeral(CommitRequest& request, CommitResult& result) ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status ExplainMismatch(const ReadRequest& request, const absl::Status& status)
      ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status ReadFailed(std::span<const ReadRequest> requests, const absl::Status& status)
      ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status SetUpMemoryTier();
  MemoryTier::Claim StageInMemory(const PutItem& item, const StagedObject& staged);
  Prefetcher::Step PrefetchStep(std::span<const std::string> names, const ReadOptions& options);
  void RetireMemoryTier();
  MoveRun NewMoveRun(uint64_t rate_bytes_per_s, std::function<bool()> stop);
  // Those of a device, given by its directory or its uuid; an error when the others could not take what they hold.
  absl::StatusOr<std::vector<DataFile*>> FilesOfDevice(const std::string& device)
      ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status SetDraining(const std::vector<DataFile*>& files, bool draining);
  absl::Status CheckEmpty(const DataFile& file) const;
  absl::Status RemoveDrained(const std::vector<DataFile*>& files, DrainReport& report)
      ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status AdoptNewFiles() ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status FollowWriter(bool now) ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  absl::Status PrepareBallast(uint64_t capacity);
  absl::Status CheckIndexRoom(uint64_t batch_bytes, bool only_deletes);
  void Reclaim();
  void StartWriting(CommitQueue::Counts counts);
  absl::Status WriteFreemap(const CommitQueue::Counts& counts);
  absl::StatusOr<CommitResult> CommitCounted(Transaction::State& transaction) ABSL_SHARED_LOCKS_REQUIRED(lifecycle_);
  LivePage SampleCounters() const;
  void PrepareCounters();
  void ShowCounters();

  std::string path_;
  StoreOptions options_;
  std::unique_ptr<Disk> own_disk_;
  Disk* disk_ = nullptr;
  const pid_t pid_ = ProcessId();
  StoreFile store_file_;
  SuperRow super_;
  Index::Mode index_mode_ = Index::Mode::kReadOnly;
  std::string read_only_reason_;  // empty: writable
  std::vector<std::string> orphan_files_;
  std::vector<uint64_t> orphans_;  // generations without a name
  std::vector<std::unique_ptr<FileLock>> locks_;

  TraceLog trace_;
  absl::Mutex trace_mutex_;  // one start or stop at a time; a leaf but for the log's

  // Built in this order, torn down in the reverse one.
  std::unique_ptr<DeviceSet> devices_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<ExtentAllocator> allocator_;
  LeaseTable leases_;
  ReadGuards guards_;
  std::atomic<uint64_t> published_{0};
  std::atomic<uint64_t> commit_sequence_{0};  // odd while a commit becomes visible
  std::unique_ptr<ParkedSpace> parked_;
  std::unique_ptr<MemoryTier> memory_tier_;  // null: none
  std::unique_ptr<EphemeralTable> ephemeral_;
  std::unique_ptr<Stager> stager_;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<TieredReader> tiered_reader_;  // where there is a memory tier
  std::unique_ptr<Prefetcher> prefetcher_;       // likewise
  WriteLatch latch_;
  std::unique_ptr<CommitQueue> queue_;
  std::unique_ptr<Mover> mover_;
  std::unique_ptr<BackgroundFill> fill_;

  std::atomic<uint64_t> puts_{0}, put_bytes_{0}, unchanged_puts_{0};
  OperationMeters meters_;
  std::string holder_text_;  // in the shelf's LOCK; empty in a reader
  int64_t opened_ns_ = 0;
  ProcessStart process_;
  std::map<Uuid, std::string> tiers_;    // of the devices
  std::unique_ptr<LiveFile> live_file_;  // null in a reader, and on a disk that is not the machine's own

  std::atomic<bool> closing_{false};  // set before Close waits for the calls that are at work: long ones stop
  absl::Mutex lifecycle_;
  bool closed_ ABSL_GUARDED_BY(lifecycle_) = false;
  absl::Mutex views_mutex_;
  std::set<View::State*> views_ ABSL_GUARDED_BY(views_mutex_);
  absl::Mutex files_mutex_;  // one change of the set of files at a time; also guards store_file_ then
  absl::Mutex follow_mutex_;
  absl::Time followed_at_ ABSL_GUARDED_BY(follow_mutex_) = absl::InfinitePast();
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_STORE_CORE_H_
