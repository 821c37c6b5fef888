// Puts free space together: in each data file objects of 1 MiB and more move down and smaller ones up, where puts place
// them too, into holes that fit them. Free space ends up in one piece between the two, but for holes that no object
// fits. Every move is one of store/move.h: a crash leaves each object at its old place or its new one.

#ifndef TENSORSHELF_STORE_COMPACT_H_
#define TENSORSHELF_STORE_COMPACT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tensorshelf {

// How free space lies, over all files that can be written to.
struct SpaceShape {
  double fragmentation = 0;  // 0 good .. 1 bad, as ExtentAllocator::FragmentationScore
  uint64_t free_bytes = 0;
  uint64_t largest_free = 0;  // bytes
  uint64_t free_runs = 0;     // how many
};

struct CompactReport {
  uint64_t objects_examined = 0;  // once for each data file that they have a part in
  uint64_t objects_moved = 0;
  uint64_t bytes_moved = 0;
  uint64_t objects_lost = 0;        // put again, deleted or moved by somebody else meanwhile
  uint64_t objects_skipped = 0;     // of features that this version does not know
  uint64_t objects_damaged = 0;     // do not match their sums, or cannot be read; they stay where they are
  std::vector<std::string> damage;  // the first 100 of them, as messages
  SpaceShape before, after;         // after: as far as readers let go of the old places
  bool stopped = false;
};

struct CompactOptions {
  uint64_t rate_bytes_per_s = 0;  // copied, on average from the start; 0: as fast as it goes, behind everything else
  // Moves nothing; `bytes_moved` and `after` are what would come out. Keeps a map of all extents in memory meanwhile.
  bool dry_run = false;
  std::function<bool()> stop = {};  // asked between pieces of 8 MiB, and while waiting: true ends the run where it is
  std::function<void(const CompactReport& so_far)> progress = {};  // after each commit; `after` is not filled in
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_COMPACT_H_
