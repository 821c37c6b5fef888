// The real Disk: O_DIRECT descriptors beside page-cache ones, libaio contexts, fcntl locks.

#ifndef TENSORSHELF_ENGINE_LINUX_DISK_H_
#define TENSORSHELF_ENGINE_LINUX_DISK_H_

#include <functional>
#include <memory>
#include <string>

#include "engine/disk.h"

namespace tensorshelf {

struct LinuxDiskOptions {
  // Called once per disk, from the opening thread, when a file system refuses direct I/O and the file works buffered.
  std::function<void(const std::string& message)> on_notice;
};

std::unique_ptr<Disk> NewLinuxDisk(LinuxDiskOptions options = {});

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_LINUX_DISK_H_
