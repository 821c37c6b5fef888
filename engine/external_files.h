// Open files of somebody else, remembered from call to call: opening, asking for alignment and closing cost more than a
// small transfer.
//
// Nothing is taken for granted of a remembered file: each call asks the file system what the path is now, and only the
// very same file with the same owner and mode is used again.

#ifndef TENSORSHELF_ENGINE_EXTERNAL_FILES_H_
#define TENSORSHELF_ENGINE_EXTERNAL_FILES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/disk.h"

namespace tensorshelf {

// Thread-safe. Files that were handed out stay open as long as they are held, whatever becomes of this object.
class ExternalFiles {
 public:
  struct Options {
    size_t remembered_count_max = 64;  // descriptors, or twice as many: a file has a second one for parts of pages
    std::function<void(const std::string& message)> on_notice = nullptr;  // direct I/O is refused
  };
  struct OpenedFile {
    std::shared_ptr<File> file;
    uint64_t size = 0;  // bytes, as the file system said during this call
  };

  explicit ExternalFiles(Options options);
  ~ExternalFiles();

  // NotFound: no such file. Symbolic links are followed; InvalidArgument for anything but a regular file.
  absl::StatusOr<OpenedFile> ForReading(const std::string& path);
  // Creates it with mode 0600 where there is none; NotFound when its folder is missing.
  absl::StatusOr<OpenedFile> ForWriting(const std::string& path);
  // By a descriptor that stays the caller's. Not remembered. See AdoptLinuxFile.
  absl::StatusOr<std::shared_ptr<File>> ForWriting(int fd);

  // Closes what is remembered and not in use.
  void Forget();

 private:
  struct Identity {
    uint64_t device = 0, inode = 0;
    uint32_t mode = 0, user = 0, group = 0;
    bool operator==(const Identity&) const = default;
  };
  struct Entry {
    std::string key;  // the path behind an r or a w
    Identity identity;
    std::shared_ptr<File> file;
  };
  using Entries = std::list<Entry>;

  absl::StatusOr<OpenedFile> Get(const std::string& path, bool for_writing);
  std::shared_ptr<File> Find(const std::string& key, const Identity& identity);
  void Remember(Entry entry);
  void DropUnlinked(Entries* dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // the last one used first
  std::unordered_map<std::string, Entries::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_EXTERNAL_FILES_H_
