// A file that appears under its name whole or not at all.

#ifndef TENSORSHELF_TOOLS_CLI_OUTPUT_FILE_H_
#define TENSORSHELF_TOOLS_CLI_OUTPUT_FILE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf::cli {

// Writes into a temporary sibling, with the mode that the umask gives. Movable; confined to one thread. Destroyed
// without Publish: the sibling is removed and the old file, if any, is as it was.
class OutputFile {
 public:
  // `path` may exist and must then be a regular file or a link to one; `disk` must outlive this.
  // `size` is what will be written: the space is reserved first, so that a full disk is told of before the work.
  static absl::StatusOr<OutputFile> Create(Disk& disk, const std::string& path, uint64_t size);
  OutputFile(OutputFile&& other) noexcept = default;
  OutputFile& operator=(OutputFile&& other) = delete;
  ~OutputFile();

  // Appends; every byte or an error. Files are written in whole units of 4 KiB past the page cache; what is left over
  // stays in `pending` until more comes or Sync.
  absl::Status Append(const std::string& bytes);
  const std::string& pending() const { return pending_; }
  // `bytes` begins with a copy of pending() and goes on with what is new: large appends without a copy of their own.
  absl::Status AppendBehindPending(std::span<const std::byte> bytes);
  // Makes the content durable under the temporary name. Internal: it is not of the size that Create was told.
  absl::Status Sync();
  // Renames over `path`. The caller syncs the directory afterwards (once for many files).
  absl::Status Publish();

  const std::string& path() const { return path_; }
  const std::string& directory() const { return directory_; }

 private:
  OutputFile() = default;

  Disk* disk_ = nullptr;
  std::string path_, directory_, temporary_path_;
  std::unique_ptr<File> file_;  // null once published
  uint64_t size_ = 0;           // to be
  uint64_t written_ = 0;        // whole units
  std::string pending_;         // less than a unit
};

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_OUTPUT_FILE_H_
