#include "store/shelf_lock.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/status_macros.h"
#include "store/errors.h"
#include "store/process_identity.h"
#include "store/shelf_files.h"
#include "store/store_core.h"

namespace tensorshelf {

absl::StatusOr<std::vector<std::unique_ptr<FileLock>>> LockShelf(Disk& disk, const std::string& shelf,
                                                                 const std::vector<std::string>& devices) {
  std::set<std::string> directories{shelf};
  for (const std::string& device : devices) directories.insert(AbsolutePath(device));
  // A STORE that cannot be read names no devices; the shelf's own lock keeps every other opener out all the same.
  if (const auto text = ReadFile(disk, JoinPath(shelf, kStoreFileName), kStoreFileBytesMax); text.ok()) {
    if (const auto parsed = ParseStoreFile(*text); parsed.ok()) {
      for (const auto& device : parsed->devices) directories.insert(ResolveHint(shelf, device.path_hint));
    }
  }
  std::vector<std::unique_ptr<FileLock>> locks;
  for (const std::string& directory : directories) {
    const auto info = disk.Stat(directory);
    if (!info.ok() || info->kind != PathInfo::Kind::kDirectory) continue;
    auto lock = disk.Lock(JoinPath(directory, kLockFileName), HolderText());
    if (absl::IsFailedPrecondition(lock.status())) {
      return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLocked, std::string(lock.status().message()));
    }
    if (!lock.ok()) return lock.status();
    locks.push_back(*std::move(lock));
  }
  return locks;
}

absl::StatusOr<std::string> SwapIndex(Disk& disk, const std::string& shelf, const std::string& new_name) {
  const absl::Status removed = disk.Remove(JoinPath(shelf, kFreemapName));
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  const std::string index = JoinPath(shelf, kIndexName);
  std::string old;
  TS_ASSIGN_OR_RETURN(const PathInfo info, disk.Stat(index));
  if (info.kind != PathInfo::Kind::kAbsent) {
    const std::string now = absl::FormatTime("%Y%m%dT%H%M%SZ", absl::Now(), absl::UTCTimeZone());
    old = absl::StrCat(index, ".before-", now);
    for (int i = 2; disk.Stat(old).value_or(PathInfo{PathInfo::Kind::kOther}).kind != PathInfo::Kind::kAbsent; ++i) {
      if (i > 1000) return absl::AlreadyExistsError(absl::StrCat(old, " is there already"));
      old = absl::StrCat(index, ".before-", now, "-", i);
    }
    TS_RETURN_IF_ERROR(disk.Rename(index, old));
  }
  TS_RETURN_IF_ERROR(disk.Rename(JoinPath(shelf, new_name), index));
  TS_RETURN_IF_ERROR(disk.SyncDirectory(shelf));
  return old;
}

}  // namespace tensorshelf
