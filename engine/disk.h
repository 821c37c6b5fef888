// The one door to storage: Disk opens files, File is one open file, IoQueue carries asynchronous transfers, IoOp is one
// of them. engine/linux_disk.h is the real door (O_DIRECT, libaio); tests/testing has one in memory and one that
// injects faults. Nothing above the engine learns about alignment, descriptors or libaio.

#ifndef TENSORSHELF_ENGINE_DISK_H_
#define TENSORSHELF_ENGINE_DISK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tensorshelf {

// How a file wants its direct transfers, in bytes: addresses in multiples of `memory`, offsets and lengths in multiples
// of `offset`. Asked of the kernel (statx STATX_DIOALIGN, Linux 6.1), then probed with a real read and write.
struct IoAlignment {
  uint32_t memory = 4096;
  uint32_t offset = 4096;
  // False: the file system refuses O_DIRECT; transfers go through the page cache and any alignment works.
  bool direct = true;
};

// One open file. Thread-safe: all methods may be called at once from any thread. Closes itself when destroyed; no
// transfer may be in flight then.
class File {
 public:
  virtual ~File() = default;

  virtual const std::string& path() const = 0;
  virtual const IoAlignment& alignment() const = 0;

  // The size in bytes that the file system reports now.
  virtual absl::StatusOr<uint64_t> Size() const = 0;

  // One positional transfer, as pread(2) and pwrite(2): the number of bytes moved, which may be short (0 = end of file
  // on a read), or a negative errno. Any alignment works: what the direct descriptor cannot take goes through the page
  // cache descriptor, and the engine's own transfers never mix the two on one range.
  virtual int64_t PRead(uint64_t offset, std::span<std::byte> to) = 0;
  virtual int64_t PWrite(uint64_t offset, std::span<const std::byte> from) = 0;

  // The same, never past the page cache, for a part of a page whose other bytes may be in flight too: the kernel
  // changes exactly these bytes, whoever writes the others, in this process or in another one. A write is on the device
  // when the call returns, so that its errors are told here and not to nobody.
  virtual int64_t PReadCached(uint64_t offset, std::span<std::byte> to) { return PRead(offset, to); }
  virtual int64_t PWriteCached(uint64_t offset, std::span<const std::byte> from) { return PWrite(offset, from); }

  // fdatasync(2): everything completed on this file before the call is durable when it returns OK. After an error
  // nothing can be said about earlier writes, and a later success does not repair that.
  virtual absl::Status Sync() = 0;

  // Reserves [0, size) on the device and makes the file that long (fallocate(2)). ResourceExhausted when there is no
  // room.
  virtual absl::Status Allocate(uint64_t size) = 0;
  virtual absl::Status Truncate(uint64_t size) = 0;

  // For IoQueue implementations of the same Disk; -1 where there is none.
  virtual int direct_fd() const = 0;
};

// The whole span or an error: repeats short transfers and EINTR, and reports an early end of file as DataLoss, with
// path, offset and both lengths.
absl::Status ReadExactly(File& file, uint64_t offset, std::span<std::byte> to);
absl::Status WriteExactly(File& file, uint64_t offset, std::span<const std::byte> from);

enum class IoKind : uint8_t { kRead, kWrite };

// One asynchronous transfer, aligned as the file's alignment() asks. The queue keeps a pointer to it from Submit to
// Reap; memory must stay valid that long.
struct IoOp {
  IoKind kind = IoKind::kRead;
  File* file = nullptr;
  uint64_t offset = 0;
  std::byte* memory = nullptr;  // written from, or read into
  uint32_t length = 0;
  void* owner = nullptr;  // the submitter's, untouched
};

struct IoCompletion {
  IoOp* op = nullptr;
  int64_t result = 0;  // bytes moved, possibly short, or a negative errno
};

// A libaio context or a stand-in. Confined to one thread at a time. Destroying it waits for what is in flight.
class IoQueue {
 public:
  virtual ~IoQueue() = default;

  virtual size_t depth() const = 0;
  virtual size_t in_flight() const = 0;

  // As io_submit(2): how many of `ops` were taken, from the front and possibly fewer than offered, or a negative errno
  // that speaks of the first op alone (EINVAL, EBADF) or of the queue (EAGAIN, ENOMEM, EINTR). Nothing beyond the
  // returned count was taken.
  virtual int Submit(std::span<IoOp* const> ops) = 0;

  // As io_getevents(2): between `at_least` and completions.size() events, fewer when `timeout_us` (negative = no limit)
  // has passed or a signal came, or a negative errno.
  virtual int Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) = 0;
};

struct OpenOptions {
  bool writable = false;
  bool create = false;  // with O_EXCL: an existing file is AlreadyExists
  bool direct = true;   // false: page cache only (small text and control files)
  uint32_t mode = 0600;
};

// What a path is, without opening it and without following a last symbolic link.
struct PathInfo {
  enum class Kind { kAbsent, kFile, kDirectory, kOther };
  Kind kind = Kind::kAbsent;
  uint64_t size = 0;
};

struct FileSystemSpace {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;
};

// An exclusive advisory lock on a file (classic fcntl(2) locks: a forked child does not inherit them). Released when
// destroyed, in the process that took it and nowhere else.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// A machine's storage, by path. Thread-safe. Statuses: NotFound, AlreadyExists, PermissionDenied, ResourceExhausted
// (ENOSPC, EDQUOT), Internal (EIO and the rest, with errno's name); every message names the path.
class Disk {
 public:
  virtual ~Disk() = default;

  // Refuses anything but a regular file (symbolic links are not followed for the last component).
  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<IoQueue>> NewQueue(size_t depth) = 0;

  virtual absl::StatusOr<PathInfo> Stat(const std::string& path) = 0;
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& directory) = 0;  // names, sorted, no . or ..
  virtual absl::Status MakeDirectory(const std::string& path, uint32_t mode) = 0;           // parents must exist
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;  // a file or an empty directory
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  virtual absl::StatusOr<FileSystemSpace> Space(const std::string& path) = 0;

  // Creates `path` if needed, locks it and writes `holder` into it. FailedPrecondition, quoting what the file says of
  // its holder, when another process has it; retries for a tenth of a second first (a killed process's descriptors may
  // live a little longer than it). A second lock in the same process is also refused.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, const std::string& holder) = 0;
  // The holder's text, or NotFound when nobody holds it. Takes nothing.
  virtual absl::StatusOr<std::string> LockHolder(const std::string& path) = 0;
};

// Reads a small file whole; DataLoss when it is longer than `size_max` bytes.
absl::StatusOr<std::string> ReadFile(Disk& disk, const std::string& path, uint64_t size_max);

// Temporary sibling, write, fdatasync, rename, directory sync: readers see the old bytes or the new ones.
absl::Status ReplaceFile(Disk& disk, const std::string& path, const std::string& bytes);

// The one place where an errno becomes a status. `context` names the call, the path and the offset.
absl::Status IoError(int error_number, const std::string& context);

// The errno that a status of ours came from, 0 if there was none. Annotate() keeps it.
int ErrorNumberOf(const absl::Status& status);
absl::Status WithErrorNumber(absl::Status status, int error_number);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_DISK_H_
