// What all workers of an engine draw from: four lanes of batches, of which the high one and then the small blocks come
// first.
//
// Of 16 turns 11 go to high priority first, 1 to small blocks, 3 to large ones and one to background; a turn whose lane
// is empty falls to the next one of its order. Where nothing is high, 12 are for small blocks. So a small block waits
// for a handful of large ones to be prepared, never for a whole batch, and no lane is ever shut out. Within a lane
// batches take turns block by block.

#ifndef TENSORSHELF_ENGINE_WORK_QUEUE_H_
#define TENSORSHELF_ENGINE_WORK_QUEUE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/batch_state.h"
#include "engine/plan.h"

namespace tensorshelf {

// Thread-safe.
class WorkQueue {
 public:
  enum class Verdict : uint8_t {
    kNothing,
    kBlock,        // `block` of `batch` is the caller's now
    kNeedsBuffer,  // the next block is staged and the caller has no buffer; nothing was taken
    kDropped,      // the batch failed: its last `dropped_count` blocks are out of the queue, for FinishBlocks
  };
  struct Pick {
    Verdict verdict = Verdict::kNothing;
    std::shared_ptr<BatchState> batch;
    const IoBlock* block = nullptr;
    size_t dropped_count = 0;
  };

  // Queues every block of the batch and wakes at most one sleeping worker per block.
  void Add(std::shared_ptr<BatchState> batch);

  Pick Take(bool has_buffer);

  // Sleeps until there is something to take (true), or the queue is closed and empty (false).
  bool Wait();

  // Nothing is added after this.
  void Close();

  // Blocks that wait, at some moment during the call.
  size_t backlog() const { return backlog_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    std::shared_ptr<BatchState> batch;
    size_t next = 0;  // blocks of the batch's plan, [next, end) are left
    size_t end = 0;
  };
  using Lane = std::deque<Entry>;

  void AddEntry(Lane& lane, const std::shared_ptr<BatchState>& batch, size_t begin, size_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Lane* NextLane() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddBacklog(size_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::atomic<size_t> backlog_{0};  // written under the mutex; a reader only steers by it

  absl::Mutex mutex_;
  absl::CondVar work_;
  Lane high_ ABSL_GUARDED_BY(mutex_);   // small blocks and large ones
  Lane small_ ABSL_GUARDED_BY(mutex_);  // of normal priority, as the next one
  Lane large_ ABSL_GUARDED_BY(mutex_);
  Lane background_ ABSL_GUARDED_BY(mutex_);
  uint32_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t sleeping_count_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_WORK_QUEUE_H_
