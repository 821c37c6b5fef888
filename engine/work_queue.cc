#include "engine/work_queue.h"

#include <algorithm>
#include <utility>

namespace tensorshelf {

void WorkQueue::Add(std::shared_ptr<BatchState> batch) {
  const size_t block_count = batch->plan().blocks.size();
  const size_t small_count = batch->plan().small_count;
  absl::MutexLock lock(&mutex_);
  if (batch->priority() != Priority::kForeground) {
    AddEntry(batch->priority() == Priority::kHigh ? high_ : background_, batch, 0, block_count);
  } else {
    AddEntry(small_, batch, 0, small_count);
    AddEntry(large_, batch, small_count, block_count);
  }
  AddBacklog(block_count);
  for (size_t i = std::min(block_count, sleeping_count_); i > 0; --i) work_.Signal();
}

void WorkQueue::AddEntry(Lane& lane, const std::shared_ptr<BatchState>& batch, size_t begin, size_t end) {
  if (begin < end) lane.push_back({batch, begin, end});
}

void WorkQueue::AddBacklog(size_t count) { backlog_.store(backlog() + count, std::memory_order_relaxed); }

WorkQueue::Lane* WorkQueue::NextLane() {
  std::array<Lane*, 4> order = {&high_, &small_, &large_, &background_};
  if (turn_ % 16 == 15) {
    order = {&background_, &large_, &small_, &high_};
  } else if (turn_ % 4 == 3) {
    order = {&large_, &small_, &high_, &background_};
  } else if (turn_ % 16 == 13) {
    order = {&small_, &high_, &large_, &background_};
  }
  for (Lane* lane : order) {
    if (!lane->empty()) return lane;
  }
  return nullptr;
}

WorkQueue::Pick WorkQueue::Take(bool has_buffer) {
  absl::MutexLock lock(&mutex_);
  Lane* lane = NextLane();
  if (lane == nullptr) return {};
  Entry& entry = lane->front();
  Pick pick;
  if (entry.batch->failed()) {
    pick.verdict = Verdict::kDropped;
    pick.batch = entry.batch;
    pick.dropped_count = entry.end - entry.next;
    AddBacklog(-pick.dropped_count);
    lane->pop_front();
    return pick;
  }
  pick.block = &entry.batch->plan().blocks[entry.next];
  if (pick.block->route == BlockRoute::kStaged && !has_buffer) {
    pick.verdict = Verdict::kNeedsBuffer;
    return pick;
  }
  pick.verdict = Verdict::kBlock;
  pick.batch = entry.batch;
  ++turn_;
  ++entry.next;
  AddBacklog(-size_t{1});
  if (entry.next == entry.end) {
    lane->pop_front();
  } else if (lane->size() > 1) {
    lane->push_back(std::move(entry));
    lane->pop_front();
  }
  return pick;
}

bool WorkQueue::Wait() {
  absl::MutexLock lock(&mutex_);
  ++sleeping_count_;
  while (backlog() == 0 && !closed_) work_.Wait(&mutex_);
  --sleeping_count_;
  return backlog() > 0;
}

void WorkQueue::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  work_.SignalAll();
}

}  // namespace tensorshelf
