// One thread with one queue of transfers: takes blocks from the shared work queue, keeps its own queue full, reaps.
//
// It sleeps in two places only: in IoQueue::Reap while it has transfers in flight, and in WorkQueue::Wait (or for a
// staging buffer) while it has none. It takes a staging buffer before it takes a block that needs one, and waits for a
// buffer only with nothing in flight, so engines that share a small arena cannot lock each other out.

#ifndef TENSORSHELF_ENGINE_WORKER_H_
#define TENSORSHELF_ENGINE_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "engine/batch_state.h"
#include "engine/disk.h"
#include "engine/engine_context.h"
#include "engine/plan.h"
#include "engine/transfer.h"

namespace tensorshelf {

// Confined to the thread that calls Run; constructed and destroyed before and after it elsewhere.
class Worker {
 public:
  // `context` must outlive the worker.
  Worker(EngineContext* context, std::unique_ptr<IoQueue> queue);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Works until the work queue is closed and empty and nothing of its own is in flight.
  void Run();

 private:
  // One block from its taking to its end. Its op is the kernel's while in_flight.
  struct Slot {
    Transfer transfer;
    std::shared_ptr<BatchState> batch;
    const IoBlock* block = nullptr;
    std::byte* buffer = nullptr;
    bool in_flight = false;
    uint64_t submitted_ns = 0;  // of the steady clock; while in_flight
  };

  bool busy() const { return free_.size() < slots_.size(); }
  size_t in_flight() const { return queue_ == nullptr ? 0 : queue_->in_flight(); }

  void Refill();  // gives the queue what there is and it has room for
  void TakeBlocks();
  std::byte* TakeBuffer();
  void GiveBack(std::byte* buffer);
  void Start(std::shared_ptr<BatchState> batch, const IoBlock& block, std::byte* buffer);

  void SubmitReady();
  void DropFailed();
  bool SubmitRefused(int error_number);
  bool EnsureQueue();

  void ReapSome();
  void ReapRefused(int error_number);
  void AbandonQueue(const absl::Status& status);
  void WakeResting();

  void Continue(Slot* slot, int64_t result);
  void Fail(Slot* slot, const absl::Status& status);
  void Release(Slot* slot);

  EngineContext* const context_;
  std::unique_ptr<IoQueue> queue_;  // null only when a lost one could not be replaced

  std::vector<Slot> slots_;  // never resized: ops are known by address
  std::vector<Slot*> free_;
  std::vector<IoOp*> ready_;    // prepared, not taken by the queue yet, in order
  std::vector<Slot*> resting_;  // of a busy device, asked again after a pause
  std::vector<IoCompletion> completions_;
  absl::Time rest_until_ = absl::InfinitePast();
  absl::Time refused_since_ = absl::InfiniteFuture();       // Submit made no progress since
  absl::Time reap_refused_since_ = absl::InfiniteFuture();  // Reap has failed since
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_WORKER_H_
