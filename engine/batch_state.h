// One batch on its way: its plan, its first failure, and the count of blocks that still keep it from being done.

#ifndef TENSORSHELF_ENGINE_BATCH_STATE_H_
#define TENSORSHELF_ENGINE_BATCH_STATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/io_engine.h"
#include "engine/plan.h"

namespace tensorshelf {

// Thread-safe.
class BatchState {
 public:
  // The segments have passed CheckSegment. Loose sums of a write are taken here, before its first byte moves.
  BatchState(Batch batch, const PlanOptions& options);

  IoKind kind() const { return batch_.kind; }
  Priority priority() const { return batch_.priority; }
  const IoPlan& plan() const { return plan_; }
  const Segment& segment(uint32_t index) const { return batch_.segments[index]; }

  // When it was handed to the engine, for a trace; 0: nobody asked then.
  uint64_t queued_ns() const { return queued_ns_; }
  void set_queued_ns(uint64_t queued_ns) { queued_ns_ = queued_ns; }  // before its first block is taken

  // Once true, no further block of the batch is submitted.
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

  // `moved` bytes of the block, counted from its start, did arrive; the segments behind them are the ones that failed.
  // Of several failures the one of the lowest segment index is told.
  void Fail(const IoBlock& block, uint64_t moved, const absl::Status& status);

  // `count` blocks are over: done, failed or never submitted, nothing of them in flight. The call that brings the last
  // one calls done() of the batch.
  void FinishBlocks(size_t count);

 private:
  void FailSegment(size_t segment, const absl::Status& status);
  void Complete();

  Batch batch_;  // constant but for the call of done
  const IoPlan plan_;
  std::vector<Sum128> loose_before_;  // of a write, constant
  uint64_t queued_ns_ = 0;

  std::atomic<size_t> unfinished_count_;
  std::atomic<bool> failed_{false};

  absl::Mutex mutex_;
  BatchResult result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_BATCH_STATE_H_
