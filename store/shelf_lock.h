// Takes a whole shelf for work on its files that goes around Store: checks with repairs, salvage, moving.

#ifndef TENSORSHELF_STORE_SHELF_LOCK_H_
#define TENSORSHELF_STORE_SHELF_LOCK_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf {

// The LOCK of the shelf, of the devices that STORE knows, and of `devices`; those that are not there are passed over.
// kLocked: somebody writes. Makes LOCK files, so the caller must know that a shelf is there.
absl::StatusOr<std::vector<std::unique_ptr<FileLock>>> LockShelf(Disk& disk, const std::string& shelf,
                                                                 const std::vector<std::string>& devices);

// Puts the index in `<shelf>/<new_name>` in the place of the shelf's. Returns where the old one is now; empty: there
// was none. A crash in between leaves no index under its name, but both beside it.
absl::StatusOr<std::string> SwapIndex(Disk& disk, const std::string& shelf, const std::string& new_name);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_SHELF_LOCK_H_
