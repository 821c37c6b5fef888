#include "tools/cli/output_file.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "index/record.h"
#include "store/name.h"

namespace tensorshelf::cli {

absl::StatusOr<OutputFile> OutputFile::Create(Disk& disk, const std::string& path, uint64_t size) {
  // Through a link the file it names is replaced, not the link.
  std::error_code error;
  const std::filesystem::path target = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
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
  const OpenOptions options{.writable = true, .create = true, .mode = 0666};
  TS_ASSIGN_OR_RETURN(output.file_, disk.Open(output.temporary_path_, options));
  output.size_ = size;
  if (size > 0) TS_RETURN_IF_ERROR(output.file_->Allocate(size));
  return output;
}

OutputFile::~OutputFile() {
  if (file_ == nullptr) return;
  file_.reset();
  // Nothing better can be done with a failure here than to leave the sibling behind.
  disk_->Remove(temporary_path_).IgnoreError();
}

absl::Status OutputFile::Append(const std::string& bytes) {
  const std::string all = pending_ + bytes;
  return AppendBehindPending(std::as_bytes(std::span(all)));
}

absl::Status OutputFile::AppendBehindPending(std::span<const std::byte> bytes) {
  const uint64_t whole = bytes.size() / kUnitBytes * kUnitBytes;
  if (whole > 0) TS_RETURN_IF_ERROR(WriteExactly(*file_, written_, bytes.first(whole)));
  written_ += whole;
  const std::span<const std::byte> rest = bytes.subspan(whole);
  pending_.assign(reinterpret_cast<const char*>(rest.data()), rest.size());
  return absl::OkStatus();
}

absl::Status OutputFile::Sync() {
  if (written_ + pending_.size() != size_) {
    return absl::InternalError(
        absl::StrCat(EscapeForTerminal(path_), ": ", written_ + pending_.size(), " bytes were written, not ", size_));
  }
  TS_RETURN_IF_ERROR(WriteExactly(*file_, written_, std::as_bytes(std::span(pending_))));
  return file_->Sync();
}

absl::Status OutputFile::Publish() {
  TS_RETURN_IF_ERROR(disk_->Rename(temporary_path_, path_));
  file_.reset();
  return absl::OkStatus();
}

}  // namespace tensorshelf::cli
