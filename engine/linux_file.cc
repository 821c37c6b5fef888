#include "engine/linux_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_direct_probe.h"

namespace tensorshelf {
namespace {

// Repeats a system call that a signal interrupted.
template <typename Call>
auto RetryInterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

bool SameFile(int a, int b) {
  struct stat stat_a, stat_b;
  return ::fstat(a, &stat_a) == 0 && ::fstat(b, &stat_b) == 0 && stat_a.st_dev == stat_b.st_dev &&
         stat_a.st_ino == stat_b.st_ino;
}

class LinuxFile : public File {
 public:
  // At least one descriptor is valid; `direct` is the one for queues where there is one.
  // `access` is O_RDONLY, O_WRONLY or O_RDWR.
  LinuxFile(std::string path, int access, IoAlignment alignment, UniqueFd direct, UniqueFd cached)
      : path_(std::move(path)),
        access_(access),
        alignment_(alignment),
        direct_(std::move(direct)),
        cached_(std::move(cached)),
        main_fd_(direct_.valid() ? direct_.get() : cached_.get()) {}

  const std::string& path() const override { return path_; }
  const IoAlignment& alignment() const override { return alignment_; }
  // Where direct I/O is refused: the page-cache descriptor, on which io_submit(2) works but blocks.
  int direct_fd() const override { return main_fd_; }

  absl::StatusOr<uint64_t> Size() const override;
  int64_t PRead(uint64_t offset, std::span<std::byte> to) override;
  int64_t PWrite(uint64_t offset, std::span<const std::byte> from) override;
  int64_t PReadCached(uint64_t offset, std::span<std::byte> to) override;
  int64_t PWriteCached(uint64_t offset, std::span<const std::byte> from) override;
  absl::Status Sync() override;
  absl::Status Allocate(uint64_t size) override;
  absl::Status Truncate(uint64_t size) override;

 private:
  // The descriptor for one transfer, or a negative errno. Mixing the two is coherent only in turn: a direct write drops
  // the cached pages of its range and a direct read writes them back first. At the same time within one *page* it is
  // not: a cached write of 100 bytes writes the whole page back later, over what a direct transfer put beside them
  // meanwhile. So whoever has several transfers in flight keeps cached ones and direct ones in different pages of 4
  // KiB.
  int FdFor(uint64_t offset, const void* memory, size_t length);
  int CachedFd();
  absl::Status FillWithZeros(uint64_t size);

  const std::string path_;
  const int access_;
  const IoAlignment alignment_;
  const UniqueFd direct_;

  absl::Mutex mutex_;
  UniqueFd cached_ ABSL_GUARDED_BY(mutex_);  // once valid, never changed

  const int main_fd_;
};

absl::StatusOr<uint64_t> LinuxFile::Size() const {
  struct stat information;
  if (::fstat(main_fd_, &information) != 0) return IoError(errno, absl::StrCat("fstat ", path_));
  return static_cast<uint64_t>(information.st_size);
}

int LinuxFile::FdFor(uint64_t offset, const void* memory, size_t length) {
  const bool aligned = reinterpret_cast<uintptr_t>(memory) % alignment_.memory == 0 &&
                       offset % alignment_.offset == 0 && length % alignment_.offset == 0;
  return direct_.valid() && aligned ? direct_.get() : CachedFd();
}

int LinuxFile::CachedFd() {
  absl::MutexLock lock(&mutex_);
  if (cached_.valid()) return cached_.get();
  const int flags = access_ | O_CLOEXEC;
  // By way of /proc the file is found even when it has been renamed since; without /proc, by name if it is still the
  // one.
  const std::string self = absl::StrCat("/proc/self/fd/", direct_.get());
  UniqueFd cached(RetryInterrupted([&] { return ::open(self.c_str(), flags); }));
  if (!cached.valid()) cached = UniqueFd(RetryInterrupted([&] { return ::open(path_.c_str(), flags | O_NOFOLLOW); }));
  if (!cached.valid()) return -errno;
  if (!SameFile(cached.get(), direct_.get())) return -ESTALE;
  cached_ = std::move(cached);
  return cached_.get();
}

int64_t LinuxFile::PRead(uint64_t offset, std::span<std::byte> to) {
  const int fd = FdFor(offset, to.data(), to.size());
  if (fd < 0) return fd;
  const ssize_t moved = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
  return moved < 0 ? -errno : moved;
}

int64_t LinuxFile::PWrite(uint64_t offset, std::span<const std::byte> from) {
  const int fd = FdFor(offset, from.data(), from.size());
  if (fd < 0) return fd;
  const ssize_t moved = ::pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
  return moved < 0 ? -errno : moved;
}

int64_t LinuxFile::PReadCached(uint64_t offset, std::span<std::byte> to) {
  const int fd = CachedFd();
  if (fd < 0) return fd;
  const ssize_t moved = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
  return moved < 0 ? -errno : moved;
}

int64_t LinuxFile::PWriteCached(uint64_t offset, std::span<const std::byte> from) {
  const int fd = CachedFd();
  if (fd < 0) return fd;
  const ssize_t moved = ::pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
  if (moved < 0) return -errno;
  // As a direct write would: the device has the bytes, or the caller the error. Its caches are not flushed.
  constexpr unsigned kWriteBack = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (::sync_file_range(fd, static_cast<off_t>(offset), moved, kWriteBack) != 0) return -errno;
  return moved;
}

absl::Status LinuxFile::Sync() {
  // Either descriptor covers the inode, its cached pages and the device's cache. This one has been open all along, so
  // that a failed write-back of pages that went through the other is reported here too.
  if (RetryInterrupted([&] { return ::fdatasync(main_fd_); }) == 0) return absl::OkStatus();
  return IoError(errno, absl::StrCat("fdatasync ", path_));
}

absl::Status LinuxFile::Allocate(uint64_t size) {
  if (size == 0) return absl::OkStatus();
  if (RetryInterrupted([&] { return ::fallocate(main_fd_, 0, 0, static_cast<off_t>(size)); }) == 0) {
    return absl::OkStatus();
  }
  if (errno == EOPNOTSUPP) return FillWithZeros(size);
  return IoError(errno, absl::StrCat("fallocate ", path_, " to ", size, " bytes"));
}

// For file systems without fallocate(2) (some network ones): slow, but the space is there afterwards.
absl::Status LinuxFile::FillWithZeros(uint64_t size) {
  constexpr uint64_t kStep = uint64_t{1} << 20;
  constexpr size_t kPage = 4096;
  TS_ASSIGN_OR_RETURN(uint64_t end, Size());
  struct AlignedFree {
    void operator()(void* memory) const { std::free(memory); }
  };
  const std::unique_ptr<void, AlignedFree> zeros(std::aligned_alloc(kPage, kStep));
  if (zeros == nullptr) return absl::ResourceExhaustedError("no memory to fill a file with zeros");
  std::memset(zeros.get(), 0, kStep);
  while (end < size) {
    const uint64_t step = std::min(kStep - end % kStep, size - end);
    TS_RETURN_IF_ERROR(WriteExactly(*this, end, {static_cast<const std::byte*>(zeros.get()), step}));
    end += step;
  }
  return absl::OkStatus();
}

absl::Status LinuxFile::Truncate(uint64_t size) {
  if (RetryInterrupted([&] { return ::ftruncate(main_fd_, static_cast<off_t>(size)); }) == 0) return absl::OkStatus();
  return IoError(errno, absl::StrCat("ftruncate ", path_, " to ", size, " bytes"));
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  UniqueFd old(std::exchange(fd_, std::exchange(other.fd_, -1)));
  return *this;
}

UniqueFd::~UniqueFd() {
  // The result says nothing: Linux frees the number in any case, and what must be durable was synced before.
  if (fd_ >= 0) ::close(fd_);
}

namespace {

absl::StatusOr<UniqueFd> OpenRegularAt(const std::string& path, int flags, uint32_t mode, int* error_number) {
  // O_NONBLOCK keeps open(2) of a FIFO from waiting for its other end, and of a device from waiting for a carrier.
  flags |= O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  UniqueFd fd(RetryInterrupted([&] { return ::open(path.c_str(), flags, mode); }));
  *error_number = fd.valid() ? 0 : errno;
  const std::string context = absl::StrCat((flags & O_CREAT) != 0 ? "create " : "open ", path);
  if (*error_number == ELOOP) return absl::InvalidArgumentError(absl::StrCat(context, ": is a symbolic link"));
  // A FIFO nobody reads, a socket; a directory for writing.
  if (*error_number == ENXIO || *error_number == EISDIR) {
    return absl::InvalidArgumentError(absl::StrCat(context, ": not a regular file"));
  }
  if (*error_number != 0) return IoError(*error_number, context);
  struct stat information;
  if (::fstat(fd.get(), &information) != 0) return IoError(errno, absl::StrCat("fstat ", path));
  if (!S_ISREG(information.st_mode)) return absl::InvalidArgumentError(absl::StrCat(context, ": not a regular file"));
  return fd;
}

}  // namespace

absl::StatusOr<UniqueFd> OpenRegular(const std::string& path, int flags, uint32_t mode, int* error_number) {
  return OpenRegularAt(path, flags | O_NOFOLLOW, mode, error_number);
}

absl::StatusOr<std::unique_ptr<File>> OpenLinuxFile(const std::string& path, const OpenOptions& options,
                                                    const std::function<void(const std::string&)>& on_buffered) {
  const IoAlignment buffered{.memory = 1, .offset = 1, .direct = false};
  const int access = options.writable ? O_RDWR : O_RDONLY;
  int error_number = 0;
  UniqueFd cached;
  // Created without O_DIRECT: where that is refused, open(2) would leave the new file behind and fail.
  if (options.create || !options.direct) {
    TS_ASSIGN_OR_RETURN(
        cached, OpenRegular(path, access | (options.create ? O_CREAT | O_EXCL : 0), options.mode, &error_number));
  }
  if (!options.direct) {
    return std::make_unique<LinuxFile>(path, access, buffered, UniqueFd(), std::move(cached));
  }

  auto direct = OpenRegular(path, access | O_DIRECT, 0, &error_number);
  if (direct.ok() && cached.valid() && !SameFile(direct->get(), cached.get())) {
    return IoError(ESTALE, absl::StrCat("open ", path, " again after creating it"));
  }
  std::string reason = "open(2) with O_DIRECT: EINVAL";
  if (direct.ok()) {
    const bool may_write = options.create && options.writable;
    const IoAlignment alignment = ProbeDirect(direct->get(), may_write);
    if (may_write && ::ftruncate(direct->get(), 0) != 0) return IoError(errno, absl::StrCat("ftruncate ", path));
    if (alignment.direct) {
      return std::make_unique<LinuxFile>(path, access, alignment, *std::move(direct), std::move(cached));
    }
    reason = "a direct transfer: EINVAL";
  } else if (error_number != EINVAL) {
    return std::move(direct).status();
  }
  if (!cached.valid()) {
    TS_ASSIGN_OR_RETURN(cached, OpenRegular(path, access, 0, &error_number));
  }
  on_buffered(reason);
  return std::make_unique<LinuxFile>(path, access, buffered, UniqueFd(), std::move(cached));
}

namespace {

constexpr IoAlignment kThroughPageCache{.memory = 1, .offset = 1, .direct = false};

// How a file of somebody else takes direct transfers. The engine cuts at pages of 4 KiB: a device that wants more is
// served through the page cache.
IoAlignment AlignmentOf(int direct_fd) {
  const IoAlignment alignment = AskDirect(direct_fd);
  return alignment.direct && alignment.offset <= 4096 ? alignment : kThroughPageCache;
}

}  // namespace

absl::StatusOr<std::unique_ptr<File>> OpenExternalLinuxFile(
    const std::string& path, bool for_writing, const std::function<void(const std::string&)>& on_buffered) {
  const int access = for_writing ? O_WRONLY : O_RDONLY;
  const int flags = for_writing ? O_WRONLY | O_CREAT : O_RDONLY;
  int error_number = 0;
  auto direct = OpenRegularAt(path, flags | O_DIRECT, 0600, &error_number);
  std::string reason = "open(2) with O_DIRECT: EINVAL";
  if (direct.ok()) {
    const IoAlignment alignment = AlignmentOf(direct->get());
    if (alignment.direct) {
      return std::make_unique<LinuxFile>(path, access, alignment, *std::move(direct), UniqueFd());
    }
    reason = "the file system says so";
  } else if (error_number != EINVAL) {
    return std::move(direct).status();
  }
  TS_ASSIGN_OR_RETURN(UniqueFd cached, OpenRegularAt(path, flags, 0600, &error_number));
  on_buffered(reason);
  return std::make_unique<LinuxFile>(path, access, kThroughPageCache, UniqueFd(), std::move(cached));
}

absl::StatusOr<std::unique_ptr<File>> AdoptLinuxFile(int fd,
                                                     const std::function<void(const std::string&)>& on_buffered) {
  const std::string name = absl::StrCat("file descriptor ", fd);
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return IoError(errno, name);
  struct stat information;
  if (::fstat(fd, &information) != 0) return IoError(errno, absl::StrCat("fstat of ", name));
  if (!S_ISREG(information.st_mode)) {
    return WithErrorNumber(absl::InvalidArgumentError(absl::StrCat(name, ": not a regular file")), EINVAL);
  }
  const int access = flags & O_ACCMODE;
  if (access == O_RDONLY) return IoError(EBADF, absl::StrCat(name, " is not open for writing"));
  if ((flags & O_APPEND) != 0) {
    return WithErrorNumber(
        absl::InvalidArgumentError(absl::StrCat(name, " was opened with O_APPEND: writes would ignore their offset")),
        EINVAL);
  }
  UniqueFd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own.valid()) return IoError(errno, absl::StrCat("fcntl F_DUPFD of ", name));

  const std::string self = absl::StrCat("/proc/self/fd/", own.get());
  char target[4096];
  const ssize_t length = ::readlink(self.c_str(), target, sizeof target);
  const std::string path = length > 0 ? std::string(target, static_cast<size_t>(length)) : name;
  UniqueFd direct;
  UniqueFd cached;
  if ((flags & O_DIRECT) != 0) {
    direct = std::move(own);
  } else {
    cached = std::move(own);
    direct = UniqueFd(RetryInterrupted([&] { return ::open(self.c_str(), access | O_DIRECT | O_CLOEXEC); }));
  }
  const IoAlignment alignment = direct.valid() ? AlignmentOf(direct.get()) : kThroughPageCache;
  if (alignment.direct) {
    return std::make_unique<LinuxFile>(path, access, alignment, std::move(direct), std::move(cached));
  }
  if (!cached.valid()) {
    cached = UniqueFd(RetryInterrupted([&] { return ::open(self.c_str(), access | O_CLOEXEC); }));
    if (!cached.valid()) return IoError(errno, absl::StrCat("open ", path, " without O_DIRECT"));
  }
  on_buffered("no direct I/O on this file");
  return std::make_unique<LinuxFile>(path, access, kThroughPageCache, UniqueFd(), std::move(cached));
}

}  // namespace tensorshelf
