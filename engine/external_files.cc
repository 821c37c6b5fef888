#include "engine/external_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_file.h"

namespace tensorshelf {
namespace {

// How many remembered files are looked at, each time that one is added, whether their last name is gone: the space of a
// deleted file is free only when nobody has it open.
constexpr size_t kUnlinkedChecks = 8;

bool Unlinked(const File& file) {
  struct stat information;
  return ::fstat(file.direct_fd(), &information) != 0 || information.st_nlink == 0;
}

}  // namespace

ExternalFiles::ExternalFiles(Options options) : options_(std::move(options)) {}

ExternalFiles::~ExternalFiles() = default;

absl::StatusOr<ExternalFiles::OpenedFile> ExternalFiles::ForReading(const std::string& path) {
  return Get(path, /*for_writing=*/false);
}

absl::StatusOr<ExternalFiles::OpenedFile> ExternalFiles::ForWriting(const std::string& path) {
  return Get(path, /*for_writing=*/true);
}

absl::StatusOr<ExternalFiles::OpenedFile> ExternalFiles::Get(const std::string& path, bool for_writing) {
  const auto identity_of = [](const struct stat& information) {
    return Identity{.device = information.st_dev,
                    .inode = information.st_ino,
                    .mode = information.st_mode,
                    .user = information.st_uid,
                    .group = information.st_gid};
  };
  const std::string key = absl::StrCat(for_writing ? "w" : "r", path);
  struct stat information;
  if (::stat(path.c_str(), &information) == 0) {
    std::shared_ptr<File> file = Find(key, identity_of(information));
    if (file != nullptr) return OpenedFile{std::move(file), static_cast<uint64_t>(information.st_size)};
  } else if (!for_writing || errno != ENOENT) {
    return IoError(errno, absl::StrCat("stat ", path));
  }

  TS_ASSIGN_OR_RETURN(
      std::shared_ptr<File> file, OpenExternalLinuxFile(path, for_writing, [&](const std::string& reason) {
        if (!options_.on_notice) return;
        options_.on_notice(absl::StrCat("no direct I/O on ", path, " (", reason, "): working through the page cache"));
      }));
  // Of the open file: the path may have become another one meanwhile.
  if (::fstat(file->direct_fd(), &information) != 0) return IoError(errno, absl::StrCat("fstat ", path));
  Remember({.key = key, .identity = identity_of(information), .file = file});
  return OpenedFile{std::move(file), static_cast<uint64_t>(information.st_size)};
}

absl::StatusOr<std::shared_ptr<File>> ExternalFiles::ForWriting(int fd) {
  return AdoptLinuxFile(fd, [&](const std::string& reason) {
    if (options_.on_notice) options_.on_notice(absl::StrCat("file descriptor ", fd, ": ", reason));
  });
}

std::shared_ptr<File> ExternalFiles::Find(const std::string& key, const Identity& identity) {
  absl::MutexLock lock(&mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end() || found->second->identity != identity) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->file;
}

void ExternalFiles::Remember(Entry entry) {
  Entries dropped;  // closed without the lock
  absl::MutexLock lock(&mutex_);
  if (const auto old = by_key_.find(entry.key); old != by_key_.end()) {
    dropped.splice(dropped.end(), entries_, old->second);
    by_key_.erase(old);
  }
  DropUnlinked(&dropped);
  while (!entries_.empty() && entries_.size() >= options_.remembered_count_max) {
    by_key_.erase(entries_.back().key);
    dropped.splice(dropped.end(), entries_, std::prev(entries_.end()));
  }
  if (options_.remembered_count_max == 0) return;
  entries_.push_front(std::move(entry));
  by_key_[entries_.front().key] = entries_.begin();
}

// From the end, where the least used are; those that stay go to the front, so that all have their turn.
void ExternalFiles::DropUnlinked(Entries* dropped) {
  for (size_t i = std::min(kUnlinkedChecks, entries_.size()); i > 0; --i) {
    const auto last = std::prev(entries_.end());
    if (Unlinked(*last->file)) {
      by_key_.erase(last->key);
      dropped->splice(dropped->end(), entries_, last);
    } else {
      entries_.splice(entries_.begin(), entries_, last);
    }
  }
}

void ExternalFiles::Forget() {
  Entries dropped;
  absl::MutexLock lock(&mutex_);
  by_key_.clear();
  dropped.swap(entries_);
}

}  // namespace tensorshelf
