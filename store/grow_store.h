// Adds capacity to a shelf that nobody has open: a new data file on each of its devices, or on new ones.

#ifndef TENSORSHELF_STORE_GROW_STORE_H_
#define TENSORSHELF_STORE_GROW_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf {

struct GrowOptions {
  // Bytes for tensors, over all the devices named, rounded up to 64 KiB a device; at least 8 MiB a device.
  uint64_t capacity = 0;
  // Directories: of devices that the shelf has, or of new ones (made when absent, else empty). None: all that it has.
  std::vector<std::string> devices;
  Disk* disk = nullptr;  // not owned; null: the machine's own
};

struct GrowReport {
  std::vector<std::string> files;  // paths of the new data files
  uint64_t capacity = 0;           // bytes added
  uint64_t commit = 0;             // that made them part of the shelf, all at once
};

// Durable when it returns. A crash before the commit leaves files that the index does not know: fsck removes them.
// kLocked: the shelf is open. Statuses of an open: what would make that refuse makes this refuse.
absl::StatusOr<GrowReport> GrowStore(const std::string& path, const GrowOptions& options);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_GROW_STORE_H_
