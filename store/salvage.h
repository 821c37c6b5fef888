// The index anew: from a backup, from the trailers that lie behind the objects in the data files, or from both. For a
// shelf whose index is gone or cannot be read.
//
// What trailers cannot know: deletes, renames, clones, which puts belonged together, whether the last ones were
// committed, and objects without a trailer (inline ones, and by default those below 64 KiB). Each name goes to the
// newest object that was put under it; older ones become name@generation.

#ifndef TENSORSHELF_STORE_SALVAGE_H_
#define TENSORSHELF_STORE_SALVAGE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf {

// One object that was found, and what became of it.
struct SalvagedObject {
  enum class Source { kBackup, kTrailer };
  enum class Fate {
    kNamed,       // under the name that it was put under, or has in the backup
    kRenamed,     // a newer object has the name
    kOverlapped,  // a newer object lies in its space: it was dropped before
    kDamaged,     // its bytes do not match their sums
    kUnreadable,  // a record that this version cannot place
  };
  Source source = Source::kTrailer;
  Fate fate = Fate::kNamed;
  std::string name;  // that it has now, else had
  uint64_t generation = 0;
  uint64_t bytes = 0;
  std::string detail;
};

struct SalvageOptions {
  std::string backup;                                    // directory of an index backup; empty: trailers alone
  std::vector<std::string> devices;                      // more directories to look for data files in
  bool dry_run = false;                                  // finds everything, changes nothing
  std::function<void(const SalvagedObject&)> on_object;  // newest first
  std::function<void(uint64_t bytes_done, uint64_t bytes_total)> progress;  // of the scan
  Disk* disk = nullptr;                                                     // not owned; null: the machine's own
};

struct SalvageReport {
  uint64_t trailers = 0;  // whole ones of this store
  uint64_t named = 0, renamed = 0, overlapped = 0, damaged = 0, unreadable = 0;
  uint64_t lost_names = 0;  // of the backup, whose objects are overwritten or damaged
  uint64_t commit = 0;      // of the new index; above every number that the data files witness
  std::string old_index;    // where the old index is now; empty: there was none
};

// Builds the new index beside the old one and swaps them at the end: a crash before that changes nothing. kLocked: a
// writer is at work. NotFound: no STORE, or no backup there. DataLoss: the backup is of another store.
absl::StatusOr<SalvageReport> SalvageIndex(const std::string& path, const SalvageOptions& options);

struct RestoreReport {
  uint64_t commit = 0;     // that the restored index ends at
  uint64_t witnessed = 0;  // that the data files witness; above `commit`: commits are missing
  std::string old_index;   // as above
};

// Puts the newest index in a backup directory in the place of the shelf's. If commits are missing from it, the shelf
// does not open for writing until somebody has accepted the loss (structure_check.h), or salvaged with that backup
// instead.
absl::StatusOr<RestoreReport> RestoreShelfIndex(const std::string& path, const std::string& backup, Disk* disk);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_SALVAGE_H_
