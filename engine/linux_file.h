// One open regular file on Linux: an O_DIRECT descriptor for transfers that are aligned and, opened when first needed,
// a page-cache descriptor for those that are not.

#ifndef TENSORSHELF_ENGINE_LINUX_FILE_H_
#define TENSORSHELF_ENGINE_LINUX_FILE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/disk.h"

namespace tensorshelf {

// Owns a descriptor; -1 owns nothing. Thread-compatible.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

// As open(2) with O_CLOEXEC and O_NOFOLLOW added and EINTR retried, for regular files only: everything else is
// InvalidArgument, and a FIFO without a partner does not block. open(2) gives EINVAL for O_DIRECT on a file system that
// has none; that comes back in *error_number beside the status.
absl::StatusOr<UniqueFd> OpenRegular(const std::string& path, int flags, uint32_t mode, int* error_number);

// See Disk::Open. `on_buffered` is called with the reason when options.direct is asked for and refused by the file
// system.
absl::StatusOr<std::unique_ptr<File>> OpenLinuxFile(const std::string& path, const OpenOptions& options,
                                                    const std::function<void(const std::string&)>& on_buffered);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_LINUX_FILE_H_
