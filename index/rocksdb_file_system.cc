#include "index/rocksdb_file_system.h"

#include <errno.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "index/rocksdb_status.h"

namespace tensorshelf {

using rocksdb::FileOptions;
using rocksdb::FSDirectory;
using rocksdb::FSRandomAccessFile;
using rocksdb::FSReadRequest;
using rocksdb::FSSequentialFile;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;
using Kind = IndexFileOp::Kind;

template <typename Operation>
IOStatus ObservedFileSystem::Observe(const IndexFileOp& op, const Operation& operation) const {
  if (observer_ == nullptr) return operation();
  if (absl::Status refusal = observer_->Before(op); !refusal.ok()) return ToRocksDb(refusal);
  IOStatus status = operation();
  if (status.ok()) observer_->After(op);
  return status;
}

namespace {

// The files below hold a pointer to the file system that made them: RocksDB closes all files before it lets go of that.

class ObservedSequentialFile : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  ObservedSequentialFile(const ObservedFileSystem* file_system, std::string path,
                         std::unique_ptr<FSSequentialFile> file)
      : FSSequentialFileOwnerWrapper(std::move(file)), file_system_(file_system), path_(std::move(path)) {}

  IOStatus Read(size_t n, const IOOptions& options, Slice* result, char* scratch, IODebugContext* debug) override {
    IOStatus status = file_system_->Observe({.kind = Kind::kRead, .path = path_, .offset = offset_},
                                            [&] { return target()->Read(n, options, result, scratch, debug); });
    if (status.ok()) offset_ += result->size();
    return status;
  }
  IOStatus Skip(uint64_t n) override {
    offset_ += n;
    return target()->Skip(n);
  }
  IOStatus PositionedRead(uint64_t offset, size_t n, const IOOptions& options, Slice* result, char* scratch,
                          IODebugContext* debug) override {
    return file_system_->Observe({.kind = Kind::kRead, .path = path_, .offset = offset},
                                 [&] { return target()->PositionedRead(offset, n, options, result, scratch, debug); });
  }

 private:
  const ObservedFileSystem* const file_system_;
  const std::string path_;
  uint64_t offset_ = 0;
};

class ObservedRandomAccessFile : public rocksdb::FSRandomAccessFileWrapper {
 public:
  ObservedRandomAccessFile(const ObservedFileSystem* file_system, std::string path,
                           std::unique_ptr<FSRandomAccessFile> file)
      : FSRandomAccessFileWrapper(file.get()),
        file_system_(file_system),
        path_(std::move(path)),
        owned_(std::move(file)) {}

  IOStatus Read(uint64_t offset, size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* debug) const override {
    return file_system_->Observe({.kind = Kind::kRead, .path = path_, .offset = offset},
                                 [&] { return target()->Read(offset, n, options, result, scratch, debug); });
  }
  IOStatus MultiRead(FSReadRequest* requests, size_t count, const IOOptions& options, IODebugContext* debug) override {
    if (!file_system_->observed()) return target()->MultiRead(requests, count, options, debug);
    for (size_t i = 0; i < count; ++i) {
      FSReadRequest& request = requests[i];
      request.status = Read(request.offset, request.len, options, &request.result, request.scratch, debug);
    }
    return IOStatus::OK();
  }
  IOStatus ReadAsync(FSReadRequest& request, const IOOptions& options,
                     std::function<void(const FSReadRequest&, void*)> done, void* done_argument, void** handle,
                     rocksdb::IOHandleDeleter* deleter, IODebugContext* debug) override {
    return file_system_->Observe({.kind = Kind::kRead, .path = path_, .offset = request.offset}, [&] {
      return target()->ReadAsync(request, options, done, done_argument, handle, deleter, debug);
    });
  }

 private:
  const ObservedFileSystem* const file_system_;
  const std::string path_;
  const std::unique_ptr<FSRandomAccessFile> owned_;
};

class ObservedWritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  ObservedWritableFile(const ObservedFileSystem* file_system, std::string path, uint64_t size,
                       std::unique_ptr<FSWritableFile> file)
      : FSWritableFileOwnerWrapper(std::move(file)), file_system_(file_system), path_(std::move(path)), size_(size) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    return ObserveAppend(data, size_, [&] { return target()->Append(data, options, debug); });
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    return ObserveAppend(data, size_, [&] { return target()->Append(data, options, verification, debug); });
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t offset, const IOOptions& options,
                            IODebugContext* debug) override {
    return ObserveAppend(data, offset, [&] { return target()->PositionedAppend(data, offset, options, debug); });
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t offset, const IOOptions& options,
                            const rocksdb::DataVerificationInfo& verification, IODebugContext* debug) override {
    return ObserveAppend(data, offset,
                         [&] { return target()->PositionedAppend(data, offset, options, verification, debug); });
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    IOStatus status = file_system_->Observe({.kind = Kind::kTruncate, .path = path_, .offset = size},
                                            [&] { return target()->Truncate(size, options, debug); });
    if (status.ok()) size_ = size;
    return status;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return file_system_->Observe({.kind = Kind::kSync, .path = path_}, [&] { return target()->Sync(options, debug); });
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return file_system_->Observe({.kind = Kind::kSync, .path = path_}, [&] { return target()->Fsync(options, debug); });
  }

 private:
  template <typename Operation>
  IOStatus ObserveAppend(const Slice& data, uint64_t offset, const Operation& operation) {
    IOStatus status = file_system_->Observe({.kind = Kind::kAppend,
                                             .path = path_,
                                             .offset = offset,
                                             .data = std::as_bytes(std::span(data.data(), data.size()))},
                                            operation);
    if (status.ok()) size_ = offset + data.size();
    return status;
  }

  const ObservedFileSystem* const file_system_;
  const std::string path_;
  uint64_t size_;  // RocksDB appends from one thread at a time
};

class ObservedDirectory : public rocksdb::FSDirectoryWrapper {
 public:
  ObservedDirectory(const ObservedFileSystem* file_system, std::string path, std::unique_ptr<FSDirectory> directory)
      : FSDirectoryWrapper(std::move(directory)), file_system_(file_system), path_(std::move(path)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return file_system_->Observe({.kind = Kind::kSyncDirectory, .path = path_},
                                 [&] { return FSDirectoryWrapper::Fsync(options, debug); });
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& directory_options) override {
    return file_system_->Observe({.kind = Kind::kSyncDirectory, .path = path_}, [&] {
      return FSDirectoryWrapper::FsyncWithDirOptions(options, debug, directory_options);
    });
  }

 private:
  const ObservedFileSystem* const file_system_;
  const std::string path_;
};

IOStatus MakePrivateDirectory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return IOStatus::OK();
  const int error = errno;
  const std::string message = "mkdir " + path;
  if (error == ENOSPC) return IOStatus::NoSpace(message, std::strerror(error));
  if (error == ENOENT) return IOStatus::PathNotFound(message, std::strerror(error));
  return IOStatus::IOError(message, std::strerror(error));
}

}  // namespace

ObservedFileSystem::ObservedFileSystem(std::shared_ptr<rocksdb::FileSystem> target, IndexFileObserver* observer)
    : FileSystemWrapper(target), observer_(observer) {}

IOStatus ObservedFileSystem::NewSequentialFile(const std::string& path, const FileOptions& options,
                                               std::unique_ptr<FSSequentialFile>* result, IODebugContext* debug) {
  std::unique_ptr<FSSequentialFile> file;
  IOStatus status = target()->NewSequentialFile(path, options, &file, debug);
  if (status.ok()) *result = std::make_unique<ObservedSequentialFile>(this, path, std::move(file));
  return status;
}

IOStatus ObservedFileSystem::NewRandomAccessFile(const std::string& path, const FileOptions& options,
                                                 std::unique_ptr<FSRandomAccessFile>* result, IODebugContext* debug) {
  std::unique_ptr<FSRandomAccessFile> file;
  IOStatus status = target()->NewRandomAccessFile(path, options, &file, debug);
  if (status.ok()) *result = std::make_unique<ObservedRandomAccessFile>(this, path, std::move(file));
  return status;
}

IOStatus ObservedFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                             std::unique_ptr<FSWritableFile>* result, IODebugContext* debug) {
  return Observe({.kind = Kind::kCreate, .path = path}, [&] {
    std::unique_ptr<FSWritableFile> file;
    IOStatus status = target()->NewWritableFile(path, options, &file, debug);
    if (status.ok()) *result = std::make_unique<ObservedWritableFile>(this, path, 0, std::move(file));
    return status;
  });
}

IOStatus ObservedFileSystem::ReopenWritableFile(const std::string& path, const FileOptions& options,
                                                std::unique_ptr<FSWritableFile>* result, IODebugContext* debug) {
  uint64_t size = 0;
  if (!target()->GetFileSize(path, options.io_options, &size, debug).ok()) {
    return NewWritableFile(path, options, result, debug);  // not there: a creation
  }
  std::unique_ptr<FSWritableFile> file;
  IOStatus status = target()->ReopenWritableFile(path, options, &file, debug);
  if (status.ok()) *result = std::make_unique<ObservedWritableFile>(this, path, size, std::move(file));
  return status;
}

IOStatus ObservedFileSystem::ReuseWritableFile(const std::string& path, const std::string&, const FileOptions&,
                                               std::unique_ptr<FSWritableFile>*, IODebugContext*) {
  return IOStatus::NotSupported("recycled log file", path);
}

IOStatus ObservedFileSystem::NewRandomRWFile(const std::string& path, const FileOptions&,
                                             std::unique_ptr<rocksdb::FSRandomRWFile>*, IODebugContext*) {
  return IOStatus::NotSupported("file open for reading and writing", path);
}

IOStatus ObservedFileSystem::NewMemoryMappedFileBuffer(const std::string& path,
                                                       std::unique_ptr<rocksdb::MemoryMappedFileBuffer>*) {
  return IOStatus::NotSupported("mapped buffer", path);
}

IOStatus ObservedFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                          std::unique_ptr<FSDirectory>* result, IODebugContext* debug) {
  std::unique_ptr<FSDirectory> directory;
  IOStatus status = target()->NewDirectory(path, options, &directory, debug);
  if (status.ok()) *result = std::make_unique<ObservedDirectory>(this, path, std::move(directory));
  return status;
}

IOStatus ObservedFileSystem::DeleteFile(const std::string& path, const IOOptions& options, IODebugContext* debug) {
  return Observe({.kind = Kind::kDelete, .path = path}, [&] { return target()->DeleteFile(path, options, debug); });
}

IOStatus ObservedFileSystem::DeleteDir(const std::string& path, const IOOptions& options, IODebugContext* debug) {
  return Observe({.kind = Kind::kDelete, .path = path}, [&] { return target()->DeleteDir(path, options, debug); });
}

IOStatus ObservedFileSystem::Truncate(const std::string& path, size_t size, const IOOptions& options,
                                      IODebugContext* debug) {
  return Observe({.kind = Kind::kTruncate, .path = path, .offset = size},
                 [&] { return target()->Truncate(path, size, options, debug); });
}

IOStatus ObservedFileSystem::CreateDir(const std::string& path, const IOOptions&, IODebugContext*) {
  return Observe({.kind = Kind::kMakeDirectory, .path = path}, [&] { return MakePrivateDirectory(path); });
}

IOStatus ObservedFileSystem::CreateDirIfMissing(const std::string& path, const IOOptions& options,
                                                IODebugContext* debug) {
  bool is_directory = false;
  if (target()->IsDirectory(path, options, &is_directory, debug).ok() && is_directory) return IOStatus::OK();
  return CreateDir(path, options, debug);
}

IOStatus ObservedFileSystem::RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                                        IODebugContext* debug) {
  // RocksDB syncs the directory only after it has renamed CURRENT. POSIX does not order two changes of one directory,
  // so a power cut in between could keep the new CURRENT and lose the entry of the MANIFEST that it names: sync it
  // first.
  const std::filesystem::path renamed(to);
  if (renamed.filename() == "CURRENT") {
    std::unique_ptr<FSDirectory> directory;
    IOStatus synced = NewDirectory(renamed.parent_path().string(), options, &directory, debug);
    if (synced.ok()) synced = directory->FsyncWithDirOptions(options, debug, rocksdb::DirFsyncOptions());
    if (!synced.ok()) return synced;
  }
  return Observe({.kind = Kind::kRename, .path = from, .target = to},
                 [&] { return target()->RenameFile(from, to, options, debug); });
}

IOStatus ObservedFileSystem::LinkFile(const std::string& from, const std::string& to, const IOOptions& options,
                                      IODebugContext* debug) {
  return Observe({.kind = Kind::kLink, .path = from, .target = to},
                 [&] { return target()->LinkFile(from, to, options, debug); });
}

IOStatus ObservedFileSystem::LockFile(const std::string& path, const IOOptions& options, rocksdb::FileLock** lock,
                                      IODebugContext* debug) {
  return Observe({.kind = Kind::kCreate, .path = path}, [&] {
    IOStatus status = target()->LockFile(path, options, lock, debug);
    if (!status.ok() && !status.IsNoSpace() && !status.IsPathNotFound()) {
      lock_refused_.store(true, std::memory_order_relaxed);  // read by the thread that called Open, after it
    }
    return status;
  });
}

}  // namespace tensorshelf
