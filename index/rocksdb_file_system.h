// The one door through which RocksDB reaches files: shows each operation to an IndexFileObserver, which may refuse it.

#ifndef TENSORSHELF_INDEX_ROCKSDB_FILE_SYSTEM_H_
#define TENSORSHELF_INDEX_ROCKSDB_FILE_SYSTEM_H_

#include <rocksdb/file_system.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "index/index.h"

namespace tensorshelf {

// Thread-safe. Directories are made with mode 0700, since RocksDB makes its files readable for all. LOCK is shown as a
// creation. Not shown, because no byte that a reader may see depends on it: preallocation, RangeSync, queries.
class ObservedFileSystem : public rocksdb::FileSystemWrapper {
 public:
  // `observer` may be null.
  ObservedFileSystem(std::shared_ptr<rocksdb::FileSystem> target, IndexFileObserver* observer);

  static const char* kClassName() { return "ObservedFileSystem"; }
  const char* Name() const override { return kClassName(); }

  // Another process, or another index of this one, holds LOCK: what Open answers with FailedPrecondition.
  bool lock_refused() const { return lock_refused_.load(std::memory_order_relaxed); }

  rocksdb::IOStatus NewSequentialFile(const std::string& path, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                      rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                        rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* result,
                                       rocksdb::IODebugContext* debug) override;
  // Refused: recycled logs, mapped buffers and files open for reading and writing would be written past the observer,
  // and no option of ours makes RocksDB use them.
  rocksdb::IOStatus ReuseWritableFile(const std::string& path, const std::string& old_path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSWritableFile>* result,
                                      rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewMemoryMappedFileBuffer(const std::string& path,
                                              std::unique_ptr<rocksdb::MemoryMappedFileBuffer>* result) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* result,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus Truncate(const std::string& path, size_t size, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus CreateDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string& path, const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus LockFile(const std::string& path, const rocksdb::IOOptions& options, rocksdb::FileLock** lock,
                             rocksdb::IODebugContext* debug) override;

  // Runs `operation` (which returns an IOStatus) between the observer's Before and After.
  template <typename Operation>
  rocksdb::IOStatus Observe(const IndexFileOp& op, const Operation& operation) const;
  bool observed() const { return observer_ != nullptr; }

 private:
  IndexFileObserver* const observer_;  // may be null
  std::atomic<bool> lock_refused_{false};
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_ROCKSDB_FILE_SYSTEM_H_
