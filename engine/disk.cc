#include "engine/disk.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

// The directory that holds the entry `path`.
std::string ParentDirectory(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status WriteTemporary(Disk& disk, const std::string& path, const std::string& bytes) {
  TS_ASSIGN_OR_RETURN(auto file, disk.Open(path, {.writable = true, .create = true, .direct = false}));
  TS_RETURN_IF_ERROR(WriteExactly(*file, 0, std::as_bytes(std::span(bytes))));
  return file->Sync();
}

}  // namespace

absl::Status ReadExactly(File& file, uint64_t offset, std::span<std::byte> to) {
  size_t done = 0;
  while (done < to.size()) {
    const int64_t moved = file.PRead(offset + done, to.subspan(done));
    if (moved == -EINTR) continue;
    if (moved < 0) {
      return IoError(static_cast<int>(-moved),
                     absl::StrCat("read of ", to.size() - done, " bytes at ", offset + done, " of ", file.path()));
    }
    if (moved == 0) {
      return absl::DataLossError(
          absl::StrCat("end of file in ", file.path(), ": wanted ", to.size(), " bytes at ", offset, ", got ", done));
    }
    done += static_cast<size_t>(moved);
  }
  return absl::OkStatus();
}

absl::Status WriteExactly(File& file, uint64_t offset, std::span<const std::byte> from) {
  size_t done = 0;
  while (done < from.size()) {
    const int64_t moved = file.PWrite(offset + done, from.subspan(done));
    if (moved == -EINTR) continue;
    // A write that moves nothing and says no error would be repeated for ever.
    if (moved <= 0) {
      return IoError(moved == 0 ? EIO : static_cast<int>(-moved),
                     absl::StrCat("write of ", from.size() - done, " bytes at ", offset + done, " of ", file.path()));
    }
    done += static_cast<size_t>(moved);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(Disk& disk, const std::string& path, uint64_t size_max) {
  TS_ASSIGN_OR_RETURN(auto file, disk.Open(path, {.direct = false}));
  TS_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > size_max) {
    return absl::DataLossError(absl::StrCat(path, " has ", size, " bytes, at most ", size_max, " expected"));
  }
  std::string bytes(size, '\0');
  TS_RETURN_IF_ERROR(ReadExactly(*file, 0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

absl::Status ReplaceFile(Disk& disk, const std::string& path, const std::string& bytes) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  // One that a crash left behind would make the exclusive creation fail for ever.
  if (absl::Status removed = disk.Remove(temporary); !removed.ok() && !absl::IsNotFound(removed)) return removed;
  absl::Status status = WriteTemporary(disk, temporary, bytes);
  if (status.ok()) status = disk.Rename(temporary, path);
  if (!status.ok()) {
    // The first error is the one to tell; a leftover is removed by the next call.
    disk.Remove(temporary).IgnoreError();
    return status;
  }
  return disk.SyncDirectory(ParentDirectory(path));
}

namespace {

constexpr char kErrorNumberUrl[] = "tensorshelf/errno";

absl::StatusCode CodeOf(int error_number) {
  switch (error_number) {
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status IoError(int error_number, const std::string& context) {
  const char* name = strerrorname_np(error_number);
  const char* description = strerrordesc_np(error_number);
  const std::string message = name != nullptr && description != nullptr
                                  ? absl::StrCat(context, ": ", name, " (", description, ")")
                                  : absl::StrCat(context, ": errno ", error_number);
  return WithErrorNumber(absl::Status(CodeOf(error_number), message), error_number);
}

int ErrorNumberOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrorNumberUrl);
  int error_number = 0;
  if (payload.has_value() && !absl::SimpleAtoi(std::string(*payload), &error_number)) return 0;
  return error_number;
}

absl::Status WithErrorNumber(absl::Status status, int error_number) {
  status.SetPayload(kErrorNumberUrl, absl::Cord(absl::StrCat(error_number)));
  return status;
}

}  // namespace tensorshelf
