// Exclusive locks between processes by classic fcntl(2) record locks, and between the parts of one process by a table.

#ifndef TENSORSHELF_ENGINE_LINUX_LOCK_H_
#define TENSORSHELF_ENGINE_LINUX_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf {

// See Disk::Lock and Disk::LockHolder. The kernel drops a classic lock as soon as its process closes *any* descriptor
// of the file, so nothing in this process may open a lock file by other means while the lock is held.
absl::StatusOr<std::unique_ptr<FileLock>> LockLinuxFile(const std::string& path, const std::string& holder);
absl::StatusOr<std::string> LinuxLockHolder(const std::string& path);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_LINUX_LOCK_H_
