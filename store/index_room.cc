// Keeps room for the index on its file system: the ballast, and the check before each commit. RocksDB does not survive
// a full disk gracefully, and a store that is full must still be able to delete.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kBallastMin = uint64_t{16} << 20;
constexpr uint64_t kBallastMax = uint64_t{256} << 20;
constexpr uint64_t kHeadroom = uint64_t{24} << 20;       // for memtables that will be flushed and a compaction
constexpr uint64_t kDeleteHeadroom = uint64_t{2} << 20;  // deletes may go down to here, once the ballast is gone
constexpr uint64_t kCopiesOfBatch = 3;                   // WAL, flushed file, its compaction

uint64_t BallastBytes(uint64_t capacity) { return std::clamp(capacity / 100, kBallastMin, kBallastMax); }

}  // namespace

// Makes the ballast whole if there is room for it, or gives it up if the index could not even be opened otherwise.
absl::Status StoreCore::PrepareBallast(uint64_t capacity) {
  const std::string path = JoinPath(path_, kBallastName);
  TS_ASSIGN_OR_RETURN(const FileSystemSpace space, disk_->Space(path_));
  TS_ASSIGN_OR_RETURN(const PathInfo info, disk_->Stat(path));
  if (info.kind == PathInfo::Kind::kAbsent) {
    TS_ASSIGN_OR_RETURN(auto created, disk_->Open(path, {.writable = true, .create = true, .direct = false}));
  }
  TS_ASSIGN_OR_RETURN(auto file, disk_->Open(path, {.writable = true, .direct = false}));
  const uint64_t wanted = BallastBytes(capacity);
  TS_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size < wanted && space.available_bytes >= wanted + 2 * kHeadroom) {
    absl::Status allocated = file->Allocate(wanted);
    if (!allocated.ok() && !absl::IsResourceExhausted(allocated)) return allocated;
  } else if (size > 0 && space.available_bytes < kHeadroom) {
    TS_RETURN_IF_ERROR(file->Truncate(0));
  }
  return absl::OkStatus();
}

absl::Status StoreCore::CheckIndexRoom(uint64_t batch_bytes, bool only_deletes) {
  TS_ASSIGN_OR_RETURN(FileSystemSpace space, disk_->Space(path_));
  const uint64_t needed = kCopiesOfBatch * batch_bytes + (only_deletes ? kDeleteHeadroom : kHeadroom);
  if (space.available_bytes >= needed) return absl::OkStatus();
  if (only_deletes) {
    auto file = disk_->Open(JoinPath(path_, kBallastName), {.writable = true, .direct = false});
    if (file.ok()) TS_RETURN_IF_ERROR((*file)->Truncate(0));
    TS_ASSIGN_OR_RETURN(space, disk_->Space(path_));
    if (space.available_bytes >= needed) return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, ErrorKind::kIndexFull,
      absl::StrCat("the file system of the index of ", path_, " has ", space.available_bytes,
                   " bytes left, this commit needs ", needed, only_deletes ? "" : " (deletes still work)"));
}

}  // namespace tensorshelf
