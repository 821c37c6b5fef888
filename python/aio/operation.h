// One call that moves a tensor to or from a file: what it is, how far it is, how it ended.

#ifndef TENSORSHELF_PYTHON_AIO_OPERATION_H_
#define TENSORSHELF_PYTHON_AIO_OPERATION_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "engine/disk.h"

namespace tensorshelf {

// What a call asks for.
struct AioRequest {
  IoKind kind = IoKind::kRead;
  at::Tensor tensor;
  std::string path;     // as the caller gave it; of a descriptor, as the kernel knows it
  uint64_t offset = 0;  // bytes, in the file
  bool validate = false;

  uint64_t size() const { return tensor.nbytes(); }
};

// Thread-safe. Whoever took it from its handle finishes it: waits until its transfers have ended, then calls Conclude
// once. Transfers hold plain pointers to it, so it is not destroyed before they have ended.
class Operation {
 public:
  Operation(AioRequest request, std::shared_ptr<File> file);

  const AioRequest& request() const { return request_; }
  File& file() const { return *file_; }

  // Memory that stands in for the tensor while bytes move: in C order, on the CPU. Undefined: the tensor's own.
  void set_stand_in(at::Tensor tensor) { stand_in_ = std::move(tensor); }
  const at::Tensor& stand_in() const { return stand_in_; }

  // What is done after the last transfer by the thread that waits, if all went well; in the order of the calls.
  void Then(std::function<absl::Status()> step) { steps_.push_back(std::move(step)); }

  // A transfer begins. The operation starts with one that stands for the call that starts it.
  void Begin() { unfinished_.fetch_add(1, std::memory_order_relaxed); }
  // A transfer is over.
  void End(const absl::Status& status);

  bool WaitFor(absl::Duration patience) const { return moved_.WaitForNotificationWithTimeout(patience); }
  void Wait() const { moved_.WaitForNotification(); }

  // Needs Wait() first. The status of the whole operation, which says what was asked for.
  absl::Status Conclude();
  // Waits until another thread has called Conclude.
  bool WaitConcludedFor(absl::Duration patience) const { return concluded_.WaitForNotificationWithTimeout(patience); }

 private:
  const AioRequest request_;
  const std::shared_ptr<File> file_;
  at::Tensor stand_in_;
  std::vector<std::function<absl::Status()>> steps_;

  std::atomic<size_t> unfinished_{1};
  absl::Notification moved_;
  absl::Notification concluded_;

  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // the first error
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_AIO_OPERATION_H_
