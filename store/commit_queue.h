// The commit thread: the only one that changes the index. Everything that waits becomes one group and one commit.
//
// Commit K, and what a crash after each step leaves:
//   0  (before) data and trailers are written, their completions read        nothing: no record names them
//   1  a slot {seq + 1, durable = K - 1} in each touched file                the same
//   2  fdatasync of each touched file, in parallel                           the same, durable
//   3  one synced batch: rows, "commit" = K, "fsync/f" = seq                 K whole or not at all
//   4  publish K, acknowledge; dropped objects are parked                    K
//   5  idle, overdue or close: a slot {durable = K}                          K, and its loss would be noticed
// An error in 2 fails the group: its space on that file goes to limbo and the file is read-only for this process. An
// error in 3 leaves the outcome unknown: the store is latched read-only first, new space goes to limbo, old space stays
// parked, nothing is reused until the store is opened again.

#ifndef TENSORSHELF_STORE_COMMIT_QUEUE_H_
#define TENSORSHELF_STORE_COMMIT_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "index/index.h"
#include "store/commit_evaluator.h"
#include "store/commit_request.h"
#include "store/device_set.h"
#include "store/ephemeral_table.h"
#include "store/extent_allocator.h"
#include "store/memory_tier.h"
#include "store/operation_meters.h"
#include "store/parked_space.h"
#include "store/stager.h"

namespace tensorshelf {

// Says why nothing may be written any more. Thread-safe; never released.
class WriteLatch {
 public:
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  void Close(const std::string& reason);
  absl::Status status() const;  // OK, or kLatched with the first reason

 private:
  std::atomic<bool> closed_{false};
  mutable absl::Mutex mutex_;
  std::string reason_ ABSL_GUARDED_BY(mutex_);
};

// Submit is thread-safe.
class CommitQueue {
 public:
  struct Context {
    Index* index = nullptr;
    DeviceSet* devices = nullptr;
    ExtentAllocator* allocator = nullptr;
    ParkedSpace* parked = nullptr;
    EphemeralTable* ephemeral = nullptr;
    MemoryTier* memory_tier = nullptr;  // null: none
    Stager* stager = nullptr;
    WriteLatch* latch = nullptr;
    std::atomic<uint64_t>* published = nullptr;  // written here alone, seq_cst
    // Odd from before a commit can be seen in the index until it is published: a reader of many names that saw the same
    // even value before and after saw one commit.
    std::atomic<uint64_t>* sequence = nullptr;
    // Room for the index: OK, or kIndexFull. Deletes may use the ballast.
    std::function<absl::Status(uint64_t batch_bytes, bool only_deletes)> check_index_room;
    SuperRow super;  // with this open's epoch; stored by the first commit
    OperationMeters* meters = nullptr;
    int64_t idle_witness_ms = 1000;
  };
  struct Counts {
    uint64_t names = 0;
    uint64_t objects = 0;
    InlineCountRow inline_count;
    SharedNames shared;
  };
  struct Stats {
    uint64_t commits = 0, groups = 0, syncs = 0, waiting = 0;
    uint64_t names = 0, objects = 0;
  };

  CommitQueue(Context context, Counts counts);
  ~CommitQueue();  // Stop()

  // Evaluates and commits, and returns when it is durable or refused. The result is in request.result.
  void Run(CommitRequest& request);

  // Finishes what waits, then joins the thread. Later Run calls are refused with kClosed.
  void Stop();
  // After Stop: what the freemap needs.
  const Counts& final_counts() const { return counts_; }
  // After Stop: writes {durable = published, clean} into a slot of every file and syncs them.
  absl::Status WriteWitness(bool clean);
  // After Stop and before the witness: one commit with the units that became bad since the last one, if there are any.
  absl::Status CommitBadUnits();

  // Milliseconds since the queue last had work.
  int64_t idle_ms() const;
  Stats stats() const;

 private:
  using Group = std::vector<CommitRequest*>;

  void Loop();
  void WriteOverdueWitness();
  void CommitGroup(const Group& group);
  void EvaluateGroup(const Group& group, CommitEvaluator& evaluator, Group& accepted,
                     std::vector<CommitResult>& results);
  void KeepSums(const CommitEvaluator& evaluator);
  absl::Status SyncTouched(const Group& accepted, CommitBatch& batch);
  void PublishGroup(const Group& accepted, const CommitEvaluator& evaluator, uint64_t commit);
  void FailGroup(const Group& accepted, const absl::Status& status);
  void FailForRoom(const Group& accepted, const absl::Status& status);
  void PutBadUnits(CommitBatch& batch);
  static bool OnlyDeletes(const Group& group);

  const Context context_;
  Counts counts_;               // the commit thread's; after Stop anybody's
  bool super_stored_ = false;   // the commit thread's
  uint64_t witnessed_ = 0;      // the commit thread's: highest commit in a slot
  int64_t witnessed_ms_;        // the commit thread's: when that was last the highest commit of all, or nearly
  bool all_read_only_ = false;  // the commit thread's: there is no file left to write a witness into
  std::atomic<uint64_t> commits_{0}, groups_{0}, syncs_{0}, names_{0}, objects_{0};
  std::atomic<int64_t> last_work_ms_{0};

  mutable absl::Mutex mutex_;  // a leaf
  std::deque<CommitRequest*> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_COMMIT_QUEUE_H_
