#include "python/aio/process_wide.h"

#include <utility>

#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"

namespace tensorshelf {

AioProcess& AioProcess::Get() {
  static AioProcess* const process = new AioProcess;
  return *process;
}

AioProcess::AioProcess() : disk_(NewLinuxDisk()), pool_({.kept_bytes_max = uint64_t{256} << 20}) {}

void AioProcess::SetNotice(std::function<void(const std::string&)> notice) {
  absl::MutexLock lock(&notice_mutex_);
  notice_ = std::move(notice);
}

void AioProcess::Notice(const std::string& message) {
  absl::MutexLock lock(&notice_mutex_);
  if (notice_) notice_(message);
}

void AioProcess::NoticeBuffered(const std::string& message) {
  if (!noticed_buffered_.exchange(true)) Notice(message);
}

absl::StatusOr<StagingArena*> AioProcess::arena() {
  absl::MutexLock lock(&mutex_);
  if (arena_ == nullptr) {
    MemoryHooks hooks;
    hooks.notice = [this](const std::string& message) { Notice(message); };
    TS_ASSIGN_OR_RETURN(arena_, StagingArena::Create({.size = kAioStagingBytes,
                                                      .buffer_size = kAioBlockBytesMax,
                                                      .page_locked = true,
                                                      .hooks = std::move(hooks)}));
  }
  return arena_.get();
}

}  // namespace tensorshelf
