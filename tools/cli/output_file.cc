#include "tools/cli/output_file.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"

namespace tensorshelf::cli {

absl::StatusOr<OutputFile> OutputFile::Create(Disk& disk, const std::string& path) {
  // Through a link the file it names is replaced, not the link.
  std::error_code error;
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  if (error || target.filename().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'", EscapeForTerminal(path), "' is not a path to write to"));
  }
  TS_ASSIGN_OR_RETURN(const PathInfo present, disk.Stat(target.string()));
  if (present.kind != PathInfo::Kind::kAbsent && present.kind != PathInfo::Kind::kFile) {
    return absl::InvalidArgumentError(absl::StrCat("'", EscapeForTerminal(path), "' is not a regular file"));
  }
  OutputFile output;
  output.disk_ = &disk;
  output.path_ = target.string();
  output.directory_ = target.parent_path().string();
  output.temporary_path_ =
      absl::StrCat(output.directory_, "/.", target.filename().string(), ".", static_cast<int64_t>(getpid()), ".tmp");
  const OpenOptions options{.writable = true, .create = true, .direct = false, .mode = 0666};
  TS_ASSIGN_OR_RETURN(output.file_, disk.Open(output.temporary_path_, options));
  return output;
}

OutputFile::~OutputFile() {
  if (file_ == nullptr) return;
  file_.reset();
  // Nothing better can be done with a failure here than to leave the sibling behind.
  disk_->Remove(temporary_path_).IgnoreError();
}

absl::Status OutputFile::Append(std::span<const std::byte> bytes) {
  TS_RETURN_IF_ERROR(WriteExactly(*file_, size_, bytes));
  size_ += bytes.size();
  return absl::OkStatus();
}

absl::Status OutputFile::Append(const std::string& bytes) { return Append(std::as_bytes(std::span(bytes))); }

absl::Status OutputFile::Sync() { return file_->Sync(); }

absl::Status OutputFile::Publish() {
  TS_RETURN_IF_ERROR(disk_->Rename(temporary_path_, path_));
  file_.reset();
  return absl::OkStatus();
}

}  // namespace tensorshelf::cli
