// What tensorshelf.aio.aio_handle does: an engine of its own, files that stay open, and operations that wait to be
// waited for. No Python here; none of its methods may be called with the interpreter lock held.

#ifndef TENSORSHELF_PYTHON_AIO_AIO_HANDLE_H_
#define TENSORSHELF_PYTHON_AIO_AIO_HANDLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/external_files.h"
#include "engine/io_engine.h"
#include "python/aio/operation.h"
#include "python/aio/process_wide.h"

namespace tensorshelf {

// As the caller gave them. The engine's transfers are of block_size, rounded to whole pages and at most
// kAioBlockBytesMax; there are `intra_op_parallelism` workers with queues of `queue_depth`. The two flags change
// nothing: transfers are always submitted together, and the queues are always kept full.
struct AioSettings {
  int64_t block_size = int64_t{1} << 20;
  int64_t queue_depth = 128;
  bool single_submit = false;
  bool overlap_events = false;
  int64_t intra_op_parallelism = 1;
};

// A call with its tensor and where it goes: a path, or an open file of the caller's (writes only).
struct AioCall {
  IoKind kind = IoKind::kRead;
  at::Tensor tensor;
  std::variant<std::string, int> target;
  int64_t offset = 0;  // bytes, in the file
  bool validate = false;
};

// Thread-safe. Destroying it waits for everything that was started.
class AioHandle {
 public:
  // InvalidArgument for a setting below 1 or absurd; ResourceExhausted when the queues would pass fs.aio-max-nr.
  static absl::StatusOr<std::unique_ptr<AioHandle>> Create(const AioSettings& settings);
  ~AioHandle();

  const AioSettings& settings() const { return settings_; }
  IoEngineStats stats() const { return engine_->stats(); }

  // Starts one operation, which the caller has to finish: Wait, then Conclude. Nothing is started unless the status is
  // OK. NotFound: no such file, or no folder for it. InvalidArgument, Unimplemented (a tensor without plain bytes),
  // DataLoss with both sizes (a read past the end of the file), and what the system said.
  // A write of ordinary memory has been copied when this returns, as far as that needs a copy at all; locked memory may
  // not change before the operation has ended.
  absl::StatusOr<std::shared_ptr<Operation>> Start(const AioCall& call);
  // The same for a caller that waits at once: nothing need be copied for the sake of later changes, and what is small
  // has moved on return.
  absl::StatusOr<std::shared_ptr<Operation>> StartAndStay(const AioCall& call);

  // Leaves an operation to the next wait().
  void Queue(std::shared_ptr<Operation> operation);

  // What one wait() has to finish.
  struct Round {
    std::vector<std::shared_ptr<Operation>> mine;    // to be finished by the caller, and then given to Concluded
    std::vector<std::shared_ptr<Operation>> others;  // other threads finish these now
  };
  Round TakeQueued();
  void Concluded(const Round& round);

  // Whether a transfer takes this memory as it is until it has ended: torch's or our page-locked memory.
  static bool IsPinned(const at::Tensor& tensor);

 private:
  AioHandle(const AioSettings& settings, AioProcess& process, StagingArena* arena, std::unique_ptr<IoEngine> engine);

  absl::StatusOr<std::shared_ptr<Operation>> Open(const AioCall& call);
  absl::Status PrepareWrite(Operation& operation);
  absl::Status PrepareRead(Operation& operation);
  void AddValidation(Operation& operation);
  Batch BatchOf(Operation& operation) const;
  void SubmitWhole(Operation& operation);

  const AioSettings settings_;
  AioProcess& process_;
  StagingArena* const arena_;
  ExternalFiles files_;
  const std::unique_ptr<IoEngine> engine_;

  absl::Mutex mutex_;
  std::vector<std::shared_ptr<Operation>> queued_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Operation>> taken_ ABSL_GUARDED_BY(mutex_);  // being finished by some thread
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_AIO_AIO_HANDLE_H_
