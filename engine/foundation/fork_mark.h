// Tells a forked child from the process that made an object, without a system call: a page that the kernel hands to
// children as zeros (MADV_WIPEONFORK of madvise(2), Linux 4.14).

#ifndef TENSORSHELF_ENGINE_FOUNDATION_FORK_MARK_H_
#define TENSORSHELF_ENGINE_FOUNDATION_FORK_MARK_H_

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace tensorshelf {

// Thread-safe. Costs a page; for what is asked on every call. Elsewhere compare getpid(2), which is a system call.
class ForkMark {
 public:
  ForkMark();
  ForkMark(const ForkMark&) = delete;
  ForkMark& operator=(const ForkMark&) = delete;
  ~ForkMark();

  // Whether this process was forked since the mark was made.
  bool forked() const {
    return page_ != nullptr ? page_->load(std::memory_order_relaxed) == 0 : ::getpid() != process_;
  }

 private:
  std::atomic<uint32_t>* page_ = nullptr;  // null where the kernel cannot wipe
  const pid_t process_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_FORK_MARK_H_
