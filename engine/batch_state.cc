#include "engine/batch_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/block_bytes.h"
#include "engine/foundation/mutation.h"

namespace tensorshelf {

BatchState::BatchState(Batch batch, const PlanOptions& options)
    : batch_(std::move(batch)),
      plan_(MakePlan(batch_.kind, batch_.segments, options)),
      unfinished_count_(plan_.blocks.size()) {
  if (batch_.kind == IoKind::kRead) return;
  loose_before_.reserve(plan_.loose_sums.size());
  for (const LooseSum& loose : plan_.loose_sums) {
    loose_before_.push_back(HashSumBlock(batch_.segments[loose.segment], loose.index));
  }
}

void BatchState::Fail(const IoBlock& block, uint64_t moved, const absl::Status& status) {
  size_t lowest = batch_.segments.size();
  for (const IoPiece& piece : plan_.PiecesOf(block)) {
    if (uint64_t{piece.block_offset} + piece.length > moved) lowest = std::min<size_t>(lowest, piece.segment);
  }
  // All pieces arrived, only the padding behind them did not.
  if (lowest == batch_.segments.size()) lowest = plan_.PiecesOf(block).back().segment;
  FailSegment(lowest, status);
}

void BatchState::FailSegment(size_t segment, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!result_.status.ok() && result_.failed_segment <= segment) return;
  result_ = {.status = status, .failed_segment = segment};
  failed_.store(true, std::memory_order_relaxed);
}

void BatchState::FinishBlocks(size_t count) {
  if (TS_MUTATE(return_before_io_ends) && failed() && unfinished_count_.exchange(0) > 0) return Complete();
  // Release: what this thread wrote (bytes, sums). Acquire: what all others wrote, before done() shows it.
  if (unfinished_count_.fetch_sub(count, std::memory_order_acq_rel) == count) Complete();
}

void BatchState::Complete() {
  for (size_t i = 0; i < plan_.loose_sums.size() && !failed(); ++i) {
    const LooseSum& loose = plan_.loose_sums[i];
    const Segment& segment = batch_.segments[loose.segment];
    const Sum128 sum = HashSumBlock(segment, loose.index);
    segment.sums[loose.index] = sum;
    if (batch_.kind == IoKind::kWrite && sum != loose_before_[i]) {
      FailSegment(loose.segment, MemoryChanged(segment, loose.index));
    }
  }
  BatchResult result;
  {
    absl::MutexLock lock(&mutex_);
    result = result_;
  }
  // The callable is dropped with the call: what it captured does not outlive done().
  const auto done = std::exchange(batch_.done, nullptr);
  if (done) done(result);
}

}  // namespace tensorshelf
