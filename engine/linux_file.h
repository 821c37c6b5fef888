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

// A plain file of somebody else. Symbolic links are followed; a file that is to be written is created with mode 0600
// where there is none, and never cut; no byte is written to find out how it transfers. NotFound: no such file, or no
// folder for it.
absl::StatusOr<std::unique_ptr<File>> OpenExternalLinuxFile(const std::string& path, bool for_writing,
                                                            const std::function<void(const std::string&)>& on_buffered);

// The open file behind a descriptor of somebody else, which stays theirs: it may be closed, but not written through,
// while this one works. For writing at offsets, so InvalidArgument unless it is a regular file opened for writing and
// without O_APPEND; EBADF when it is no descriptor at all.
absl::StatusOr<std::unique_ptr<File>> AdoptLinuxFile(int fd,
                                                     const std::function<void(const std::string&)>& on_buffered);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_LINUX_FILE_H_
