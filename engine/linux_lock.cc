#include "engine/linux_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_file.h"

namespace tensorshelf {
namespace {

constexpr size_t kHolderSizeMax = 4096;
constexpr absl::Duration kPatience = absl::Milliseconds(100);
constexpr absl::Duration kPause = absl::Milliseconds(5);

struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  auto operator<=>(const FileId&) const = default;
};

std::optional<FileId> IdOf(const std::string& path) {
  struct stat information;
  if (::lstat(path.c_str(), &information) != 0) return std::nullopt;
  return FileId{information.st_dev, information.st_ino};
}

// What this process has locked. Of the process and not of a Disk, because that is whom the kernel grants the locks: to
// a second Disk in the process it would grant the same lock again. Entries that a forked child inherits name its
// parent's pid and count for nothing.
class HeldLocks {
 public:
  static HeldLocks& OfThisProcess() {
    static HeldLocks* const held = new HeldLocks;  // never destroyed: locks may be given back during exit
    return *held;
  }

  // Held around every open and close of a lock file, because a close in between would drop a lock just taken.
  absl::Mutex mutex;

  const std::string* Find(const FileId& id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto entry = holders_.find(id);
    return entry != holders_.end() && entry->second.process == ::getpid() ? &entry->second.text : nullptr;
  }
  void Add(const FileId& id, const std::string& text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    holders_[id] = {::getpid(), text};
  }
  void Remove(const FileId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { holders_.erase(id); }

 private:
  struct Holder {
    pid_t process;
    std::string text;
  };
  std::map<FileId, Holder> holders_ ABSL_GUARDED_BY(mutex);
};

class LinuxLock : public FileLock {
 public:
  LinuxLock(UniqueFd fd, FileId id) : fd_(std::move(fd)), id_(id), process_(::getpid()) {}
  ~LinuxLock() override {
    // In a forked child the descriptor is closed and that is all: the lock belongs to the parent, the table may be
    // locked.
    if (::getpid() != process_) return;
    HeldLocks& held = HeldLocks::OfThisProcess();
    absl::MutexLock lock(&held.mutex);
    held.Remove(id_);
    fd_ = UniqueFd();  // closing releases
  }

 private:
  UniqueFd fd_;
  const FileId id_;
  const pid_t process_;
};

struct flock WholeFile() {
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  return range;
}

// Who has the lock on `fd`, by the text in the file; the pid where the holder has not written it yet. NotFound: nobody.
absl::StatusOr<std::string> HolderOf(int fd, const std::string& path) {
  struct flock range = WholeFile();
  if (::fcntl(fd, F_GETLK, &range) != 0) return IoError(errno, absl::StrCat("fcntl F_GETLK ", path));
  if (range.l_type == F_UNLCK) return absl::NotFoundError(absl::StrCat(path, " is not locked"));
  std::string text(kHolderSizeMax, '\0');
  const ssize_t length = ::pread(fd, text.data(), text.size(), 0);
  if (length < 0) return IoError(errno, absl::StrCat("read ", path));
  text.resize(static_cast<size_t>(length));
  return text.empty() ? absl::StrCat("pid ", range.l_pid) : text;
}

absl::Status WriteHolder(int fd, const std::string& path, const std::string& holder) {
  // Text first, then the length: a reader never sees an empty file where there was a holder.
  const ssize_t length = ::pwrite(fd, holder.data(), holder.size(), 0);
  if (length != static_cast<ssize_t>(holder.size())) {
    return IoError(length < 0 ? errno : ENOSPC, absl::StrCat("write of the holder into ", path));
  }
  if (::ftruncate(fd, length) != 0) return IoError(errno, absl::StrCat("ftruncate ", path));
  return absl::OkStatus();
}

// nullptr: held by someone in another process, named in *holder_now.
absl::StatusOr<std::unique_ptr<FileLock>> TryLock(const std::string& path, const std::string& holder,
                                                  std::string* holder_now) {
  HeldLocks& held = HeldLocks::OfThisProcess();
  absl::MutexLock lock(&held.mutex);
  if (const auto id = IdOf(path)) {
    if (const std::string* text = held.Find(*id)) {
      return absl::FailedPreconditionError(absl::StrCat(path, " is locked by this process: ", *text));
    }
  }
  int error_number = 0;
  TS_ASSIGN_OR_RETURN(UniqueFd fd, OpenRegular(path, O_RDWR | O_CREAT, 0600, &error_number));
  struct flock range = WholeFile();
  if (::fcntl(fd.get(), F_SETLK, &range) != 0) {
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
      return IoError(errno, absl::StrCat("fcntl F_SETLK ", path));
    }
    if (absl::StatusOr<std::string> text = HolderOf(fd.get(), path); text.ok()) *holder_now = *text;
    return nullptr;
  }
  struct stat information;
  if (::fstat(fd.get(), &information) != 0) return IoError(errno, absl::StrCat("fstat ", path));
  const FileId id{information.st_dev, information.st_ino};
  // Removed or replaced between open and lock: a lock on a file without its name keeps nobody out.
  if (IdOf(path) != id) return nullptr;
  TS_RETURN_IF_ERROR(WriteHolder(fd.get(), path, holder));
  held.Add(id, holder);
  return std::make_unique<LinuxLock>(std::move(fd), id);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileLock>> LockLinuxFile(const std::string& path, const std::string& holder) {
  if (holder.size() > kHolderSizeMax) return absl::InvalidArgumentError("the text of a lock's holder is too long");
  std::string holder_now = "an unknown process";
  const absl::Time deadline = absl::Now() + kPatience;
  while (true) {
    TS_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock, TryLock(path, holder, &holder_now));
    if (lock != nullptr) return lock;
    if (absl::Now() >= deadline) {
      return absl::FailedPreconditionError(absl::StrCat(path, " is locked by ", holder_now));
    }
    absl::SleepFor(kPause);
  }
}

absl::StatusOr<std::string> LinuxLockHolder(const std::string& path) {
  HeldLocks& held = HeldLocks::OfThisProcess();
  absl::MutexLock lock(&held.mutex);
  // Asked here first: to open and close the file would drop our own lock.
  if (const auto id = IdOf(path)) {
    if (const std::string* text = held.Find(*id)) return *text;
  }
  int error_number = 0;
  TS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenRegular(path, O_RDONLY, 0, &error_number));
  return HolderOf(fd.get(), path);
}

}  // namespace tensorshelf
