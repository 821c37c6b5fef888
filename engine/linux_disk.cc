#include "engine/linux_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/linux_file.h"
#include "engine/linux_lock.h"
#include "engine/linux_queue.h"

namespace tensorshelf {
namespace {

class LinuxDisk : public Disk {
 public:
  explicit LinuxDisk(LinuxDiskOptions options) : options_(std::move(options)) {}

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override {
    return OpenLinuxFile(path, options, [&](const std::string& reason) { NoticeBuffered(path, reason); });
  }
  absl::StatusOr<std::unique_ptr<IoQueue>> NewQueue(size_t depth) override { return NewLinuxQueue(depth); }
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, const std::string& holder) override {
    return LockLinuxFile(path, holder);
  }
  absl::StatusOr<std::string> LockHolder(const std::string& path) override { return LinuxLockHolder(path); }

  absl::StatusOr<PathInfo> Stat(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status MakeDirectory(const std::string& path, uint32_t mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<FileSystemSpace> Space(const std::string& path) override;

 private:
  void NoticeBuffered(const std::string& path, const std::string& reason) {
    if (!options_.on_notice || noticed_.exchange(true)) return;
    options_.on_notice(absl::StrCat("no direct I/O on ", path, " (", reason, "): working through the page cache"));
  }

  const LinuxDiskOptions options_;
  std::atomic<bool> noticed_{false};
};

absl::StatusOr<PathInfo> LinuxDisk::Stat(const std::string& path) {
  struct stat information;
  if (::lstat(path.c_str(), &information) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return PathInfo{};
    return IoError(errno, absl::StrCat("lstat ", path));
  }
  PathInfo info{.kind = PathInfo::Kind::kOther, .size = static_cast<uint64_t>(information.st_size)};
  if (S_ISREG(information.st_mode)) info.kind = PathInfo::Kind::kFile;
  if (S_ISDIR(information.st_mode)) info.kind = PathInfo::Kind::kDirectory;
  return info;
}

absl::StatusOr<std::vector<std::string>> LinuxDisk::List(const std::string& directory) {
  struct CloseDirectory {
    // Fails only for a bad pointer.
    void operator()(DIR* stream) const { ::closedir(stream); }
  };
  const std::unique_ptr<DIR, CloseDirectory> stream(::opendir(directory.c_str()));
  if (stream == nullptr) return IoError(errno, absl::StrCat("opendir ", directory));
  std::vector<std::string> names;
  while (true) {
    errno = 0;  // the only way to tell an error from the end
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr && errno != 0) return IoError(errno, absl::StrCat("readdir ", directory));
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status LinuxDisk::MakeDirectory(const std::string& path, uint32_t mode) {
  if (::mkdir(path.c_str(), mode) == 0) return absl::OkStatus();
  return IoError(errno, absl::StrCat("mkdir ", path));
}

absl::Status LinuxDisk::Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return IoError(errno, absl::StrCat("rename ", from, " to ", to));
}

absl::Status LinuxDisk::Remove(const std::string& path) {
  if (::unlink(path.c_str()) == 0) return absl::OkStatus();
  if (errno == EISDIR && ::rmdir(path.c_str()) == 0) return absl::OkStatus();
  return IoError(errno, absl::StrCat("remove ", path));
}

absl::Status LinuxDisk::SyncDirectory(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return IoError(errno, absl::StrCat("open directory ", path));
  int result = ::fsync(fd.get());
  while (result != 0 && errno == EINTR) result = ::fsync(fd.get());
  if (result != 0) return IoError(errno, absl::StrCat("fsync of directory ", path));
  return absl::OkStatus();
}

absl::StatusOr<FileSystemSpace> LinuxDisk::Space(const std::string& path) {
  struct statvfs information;
  if (::statvfs(path.c_str(), &information) != 0) return IoError(errno, absl::StrCat("statvfs ", path));
  return FileSystemSpace{.total_bytes = uint64_t{information.f_blocks} * information.f_frsize,
                         .available_bytes = uint64_t{information.f_bavail} * information.f_frsize};
}

}  // namespace

std::unique_ptr<Disk> NewLinuxDisk(LinuxDiskOptions options) { return std::make_unique<LinuxDisk>(std::move(options)); }

}  // namespace tensorshelf
