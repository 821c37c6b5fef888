#include "engine/worker.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/block_bytes.h"
#include "engine/block_steps.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

// Between two tries at something that was busy.
constexpr absl::Duration kPause = absl::Milliseconds(1);

// The longest sleep in Reap while the queue has room: nobody can wake a thread in io_getevents(2), so this bounds how
// long new work waits when every worker sleeps there and the device completes nothing meanwhile.
constexpr int64_t kRoomTimeoutUs = 1000;
// The same while the queue is full and nothing could be taken anyway.
constexpr int64_t kFullTimeoutUs = 10000;

// The fewest blocks of one round; fewer would cost a system call each.
constexpr size_t kRoundMin = 4;

}  // namespace

Worker::Worker(EngineContext* context, std::unique_ptr<IoQueue> queue)
    : context_(context),
      queue_(std::move(queue)),
      slots_(context->options.queue_depth),
      completions_(context->options.queue_depth) {
  free_.reserve(slots_.size());
  ready_.reserve(slots_.size());
  for (Slot& slot : slots_) free_.push_back(&slot);
}

void Worker::Run() {
  for (;;) {
    Refill();
    if (busy()) {
      ReapSome();
    } else if (context_->work.backlog() == 0 && !context_->work.Wait()) {
      return;
    }
  }
}

void Worker::Refill() {
  if (ready_.empty()) TakeBlocks();
  SubmitReady();
}

// A round takes its share of what waits, no more: the other workers have processors for the copies and sums of the
// rest.
void Worker::TakeBlocks() {
  const size_t share = context_->work.backlog() / context_->options.worker_count + 1;
  size_t round = std::min(free_.size(), std::max(share, kRoundMin));
  std::byte* buffer = nullptr;
  while (round > 0) {
    WorkQueue::Pick pick = context_->work.Take(buffer != nullptr);
    if (pick.verdict == WorkQueue::Verdict::kNothing) break;
    if (pick.verdict == WorkQueue::Verdict::kDropped) {
      pick.batch->FinishBlocks(pick.dropped_count);
      continue;
    }
    if (pick.verdict == WorkQueue::Verdict::kNeedsBuffer) {
      buffer = TakeBuffer();
      if (buffer == nullptr) break;
      continue;
    }
    if (!ready_.empty() && PrepareIsHeavy(*pick.batch, *pick.block)) SubmitReady();
    const bool staged = pick.block->route == BlockRoute::kStaged;
    Start(std::move(pick.batch), *pick.block, staged ? std::exchange(buffer, nullptr) : nullptr);
    --round;
  }
  if (buffer != nullptr) GiveBack(buffer);
}

// Null: none is free, or the engine has its share; what is in flight here brings one back.
std::byte* Worker::TakeBuffer() {
  std::byte* buffer = context_->buffers.spent() ? nullptr : context_->arena->TryTake();
  if (buffer == nullptr) {
    if (busy()) return nullptr;
    buffer = context_->arena->Take();  // beyond the share: a worker without any would have nothing to wake it
  }
  context_->buffers.CountTaken();
  return buffer;
}

void Worker::GiveBack(std::byte* buffer) {
  context_->buffers.CountGivenBack();
  context_->arena->GiveBack(buffer);
}

void Worker::Start(std::shared_ptr<BatchState> batch, const IoBlock& block, std::byte* buffer) {
  if (block.route == BlockRoute::kPageCache) {
    MoveBlockHere(*context_, *batch, block, nullptr);
    batch->FinishBlocks(1);
    return;
  }
  Slot* slot = free_.back();
  free_.pop_back();
  slot->transfer = Transfer(batch->kind(), block, PrepareBlock(*batch, block, buffer), context_->retry_deadline());
  slot->transfer.op()->owner = slot;
  slot->batch = std::move(batch);
  slot->block = &block;
  slot->buffer = buffer;
  ready_.push_back(slot->transfer.op());
  // The device starts on it while the next one is being copied.
  if (PrepareIsHeavy(*slot->batch, block)) SubmitReady();
}

void Worker::SubmitReady() {
  DropFailed();
  while (!ready_.empty() && EnsureQueue()) {
    const uint64_t now_ns = SteadyNanoseconds();
    const int taken = queue_->Submit(ready_);
    if (taken == -EINTR) continue;
    if (taken <= 0) {
      if (!SubmitRefused(-taken)) return;
      continue;
    }
    refused_since_ = absl::InfiniteFuture();
    for (int i = 0; i < taken; ++i) {
      const auto slot = static_cast<Slot*>(ready_[i]->owner);
      slot->in_flight = true;
      slot->submitted_ns = now_ns;
      context_->counters.CountSubmitted(ready_[i]->kind);
    }
    // The queue may take a part only; the rest is offered again, and what is wrong with it shows then.
    ready_.erase(ready_.begin(), ready_.begin() + taken);
  }
}

// Nothing of a failed batch goes to the device any more.
void Worker::DropFailed() {
  const auto dropped = std::stable_partition(
      ready_.begin(), ready_.end(), [](const IoOp* op) { return !static_cast<Slot*>(op->owner)->batch->failed(); });
  const std::vector<IoOp*> failed(dropped, ready_.end());
  ready_.erase(dropped, ready_.end());
  for (IoOp* op : failed) Release(static_cast<Slot*>(op->owner));
}

// What an error of io_submit(2) is about: EAGAIN of the queue (the kernel is short of slots, fs.aio-max-nr, or the
// queue is full), ENOMEM of the kernel, anything else of the first op alone. True when there may be more to submit at
// once.
bool Worker::SubmitRefused(int error_number) {
  const auto first = static_cast<Slot*>(ready_.front()->owner);
  const std::string what = absl::StrCat("submitting ", first->block->length, " bytes at ", first->block->offset, " of ",
                                        first->block->file->path());
  if (error_number == EAGAIN || error_number == 0) {
    const absl::Time now = absl::Now();
    refused_since_ = std::min(refused_since_, now);
    if (now - refused_since_ < context_->retry_deadline()) {
      context_->counters.CountResubmitted();
      return false;
    }
    const absl::Status status = absl::ResourceExhaustedError(
        absl::StrCat(what, ": EAGAIN for ", absl::FormatDuration(context_->retry_deadline()),
                     "; fs.aio-max-nr may be too low (see /proc/sys/fs/aio-nr)"));
    for (IoOp* op : std::exchange(ready_, {})) Fail(static_cast<Slot*>(op->owner), status);
    refused_since_ = absl::InfiniteFuture();
    return false;
  }
  // Memory may come back with what is reaped.
  if (error_number == ENOMEM && in_flight() > 0) return false;
  ready_.erase(ready_.begin());
  Fail(first, IoError(error_number, what));
  return true;
}

// False when a queue that was lost cannot be replaced; everything that was ready has failed then.
bool Worker::EnsureQueue() {
  if (queue_ != nullptr) return true;
  auto queue = context_->disk->NewQueue(slots_.size());
  if (queue.ok()) {
    queue_ = *std::move(queue);
    return true;
  }
  for (IoOp* op : std::exchange(ready_, {})) Fail(static_cast<Slot*>(op->owner), queue.status());
  return false;
}

void Worker::ReapSome() {
  if (in_flight() == 0) {
    // What there is rests, or was refused.
    if (busy()) absl::SleepFor(kPause);
    WakeResting();
    return;
  }
  // With the queue full and more waiting, one wake-up for several completions costs the device nothing and saves
  // most of the wake-ups. Else whoever waits for the first one wants to know at once.
  const bool full = free_.empty() && context_->work.backlog() > 0;
  const size_t at_least = full ? std::max<size_t>(1, in_flight() / 4) : 1;
  const int64_t timeout_us = full && resting_.empty() ? kFullTimeoutUs : kRoomTimeoutUs;
  const int count = queue_->Reap(at_least, completions_, timeout_us);
  if (count < 0) {
    ReapRefused(-count);
  } else {
    reap_refused_since_ = absl::InfiniteFuture();
  }
  const uint64_t now_ns = SteadyNanoseconds();
  for (int i = 0; i < count; ++i) {
    const auto slot = static_cast<Slot*>(completions_[i].op->owner);
    slot->in_flight = false;
    context_->counters.CountReaped(completions_[i].op->kind, now_ns - slot->submitted_ns);
    const bool heavy = ConcludeIsHeavy(*slot->batch, *slot->block);
    if (context_->tracing()) {
      context_->Trace(*completions_[i].op, slot->batch->queued_ns(), slot->submitted_ns, now_ns,
                      completions_[i].result);
    }
    Continue(slot, completions_[i].result);
    if (heavy && i + 1 < count) Refill();
  }
  WakeResting();
}

// A reap that fails says nothing of the transfers, which stay in flight; it is tried again until the deadline.
void Worker::ReapRefused(int error_number) {
  if (error_number == EINTR) return;
  const absl::Time now = absl::Now();
  reap_refused_since_ = std::min(reap_refused_since_, now);
  if (now - reap_refused_since_ < context_->retry_deadline()) {
    absl::SleepFor(kPause);
    return;
  }
  reap_refused_since_ = absl::InfiniteFuture();
  AbandonQueue(IoError(error_number, "reaping transfers"));
}

// Destroying a queue waits until nothing of it is in flight; what became of its transfers is not known.
void Worker::AbandonQueue(const absl::Status& status) {
  queue_.reset();
  for (Slot& slot : slots_) {
    if (!std::exchange(slot.in_flight, false)) continue;
    context_->counters.CountReaped(slot.transfer.op()->kind, SteadyNanoseconds() - slot.submitted_ns);
    Fail(&slot, status);
  }
}

void Worker::WakeResting() {
  if (resting_.empty() || absl::Now() < rest_until_) return;
  for (Slot* slot : resting_) ready_.push_back(slot->transfer.op());
  resting_.clear();
}

void Worker::Continue(Slot* slot, int64_t result) {
  switch (slot->transfer.Take(result)) {
    case Transfer::Next::kAgain:
      context_->counters.CountResubmitted();
      ready_.push_back(slot->transfer.op());
      break;
    case Transfer::Next::kAgainLater:
      context_->counters.CountResubmitted();
      resting_.push_back(slot);
      rest_until_ = absl::Now() + kPause;
      break;
    case Transfer::Next::kDone:
    case Transfer::Next::kFailed:
      ConcludeBlock(*context_, *slot->batch, *slot->block, slot->buffer, slot->transfer);
      Release(slot);
      break;
  }
}

void Worker::Fail(Slot* slot, const absl::Status& status) {
  context_->counters.CountFailed();
  slot->batch->Fail(*slot->block, slot->transfer.moved(), status);
  Release(slot);
}

// The slot is free before done() of the batch may run.
void Worker::Release(Slot* slot) {
  if (slot->buffer != nullptr) GiveBack(std::exchange(slot->buffer, nullptr));
  const std::shared_ptr<BatchState> batch = std::move(slot->batch);
  free_.push_back(slot);
  batch->FinishBlocks(1);
}

}  // namespace tensorshelf
