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
  static absl::StatusOr<OutputFile> Create(Disk& disk, const std::string& path);
  OutputFile(OutputFile&& other) noexcept = default;
  OutputFile& operator=(OutputFile&& other) = delete;
  ~OutputFile();

  // Appends; every byte or an error.
  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Append(const std::string& bytes);
  // Makes the content durable under the temporary name.
  absl::Status Sync();
  // Renames over `path`. The caller syncs the directory afterwards (once for many files).
  absl::Status Publish();

  const std::string& path() const { return path_; }
  const std::string& directory() const { return directory_; }
  uint64_t size() const { return size_; }

 private:
  OutputFile() = default;

  Disk* disk_ = nullptr;
  std::string path_, directory_, temporary_path_;
  std::unique_ptr<File> file_;  // null once published
  uint64_t size_ = 0;
};

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_OUTPUT_FILE_H_
