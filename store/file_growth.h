// The data files that a growth adds to a shelf, whoever commits them: grow_store.h does it to a shelf that nobody has
// open, Store::Grow to one that is.

#ifndef TENSORSHELF_STORE_FILE_GROWTH_H_
#define TENSORSHELF_STORE_FILE_GROWTH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/disk.h"
#include "index/index.h"
#include "store/grow_store.h"
#include "store/label.h"
#include "store/store_file.h"

namespace tensorshelf {

// A data file that the shelf has: its device can take another one.
struct ExistingFile {
  std::string path, directory;
  Label label;
};

struct NewFile {
  std::string path, directory;
  std::unique_ptr<File> file;
  Label label;
};

// The label of a file that the index knows by now.
Label ActiveLabel(const Label& joining);

// One growth. Confined to one thread; `disk` and `options` outlive it, the devices of `options` are absolute paths.
class FileGrowth {
 public:
  FileGrowth(Disk& disk, std::string shelf, const GrowOptions& options, std::vector<ExistingFile> existing,
             StoreFile store_file);

  // Those of the options that the shelf has not. AlreadyExists: one of them is not empty. Before anything is made
  // there.
  absl::StatusOr<std::vector<std::string>> NewDevices() const;

  // Files with the label "joining" and a first slot, durable, and STORE with their devices' hints. On an error they are
  // removed again.
  absl::Status Make(uint64_t epoch, uint64_t commit);
  // The rows that make them part of the shelf.
  void PutRows(CommitBatch& batch) const;
  // After the commit: their labels say "active".
  absl::Status Activate();
  // Before the commit, or when it was refused. What cannot be removed is an orphan, which fsck knows.
  void RemoveFiles();

  std::vector<NewFile>& files() { return files_; }
  // Paths and bytes; the commit is the caller's.
  GrowReport Report() const;
  const StoreFile& store_file() const { return store_file_; }

 private:
  absl::Status ChooseDirectories();
  const ExistingFile* FileIn(const std::string& directory) const;
  absl::Status CheckUnused(const std::string& directory) const;
  absl::Status MakeDirectory(const std::string& directory) const;
  absl::Status MakeFile(const std::string& directory, uint64_t epoch, uint64_t commit);

  Disk& disk_;
  const std::string shelf_;
  const GrowOptions& options_;
  const std::vector<ExistingFile> existing_;
  const StoreFile old_store_file_;
  StoreFile store_file_;
  std::vector<std::string> directories_;
  std::vector<NewFile> files_;
  uint32_t next_file_id_ = 1;
  uint64_t data_bytes_ = 0;  // a device
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_FILE_GROWTH_H_
