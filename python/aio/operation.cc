#include "python/aio/operation.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {

Operation::Operation(AioRequest request, std::shared_ptr<File> file)
    : request_(std::move(request)), file_(std::move(file)) {}

void Operation::End(const absl::Status& status) {
  if (!status.ok()) {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = status;
  }
  // Release: what this thread moved. Acquire: what all others did, before the waiter looks at it.
  if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) moved_.Notify();
}

absl::Status Operation::Conclude() {
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    status = status_;
  }
  for (const auto& step : std::exchange(steps_, {})) {
    if (status.ok()) status = step();
  }
  concluded_.Notify();
  return Annotate(status, absl::StrCat(request_.kind == IoKind::kRead ? "read" : "write", " of ", request_.size(),
                                       " bytes at offset ", request_.offset, " of ", request_.path));
}

}  // namespace tensorshelf
