// Writes down anew where the devices of a shelf are, after their directories were moved.

#ifndef TENSORSHELF_STORE_RELOCATE_H_
#define TENSORSHELF_STORE_RELOCATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "index/record.h"

namespace tensorshelf {

struct RelocatedDevice {
  Uuid uuid{};
  std::string old_hint;   // as STORE had it; empty: it did not know the device
  std::string directory;  // where its data file is; empty: not found, and its hint stays
};

// Finds the data files by their labels: in the shelf, at the hints, and in `directories`; then replaces the hints in
// STORE. `dry_run`: only says what it would write. kLocked: a writer is at work. `disk` may be null: the machine's own.
absl::StatusOr<std::vector<RelocatedDevice>> RelocateShelf(const std::string& path,
                                                           const std::vector<std::string>& directories, bool dry_run,
                                                           Disk* disk);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_RELOCATE_H_
