// Which units of the data files belong to which objects, and what is wrong with that: for tools that look, also at an
// index that is damaged. The allocator's own rebuild (extent_allocator.h) refuses what this describes.

#ifndef TENSORSHELF_STORE_SPACE_MAP_H_
#define TENSORSHELF_STORE_SPACE_MAP_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "index/record.h"
#include "store/extent_allocator.h"
#include "store/free_runs.h"

namespace tensorshelf {

struct SpaceProblem {
  OwnedExtent extent;
  uint64_t other_generation = 0;  // that it overlaps with; 0: it is not inside a data file
  std::string message;
};

// One data file. live + free + bad units add up to its capacity where there are no problems.
struct FileUse {
  SpaceFile file;
  uint64_t live_units = 0;
  uint64_t bad_units = 0;  // known bad and not live
  std::vector<UnitRun> free;
  double fragmentation = 0;  // 0 good .. 1 bad, as ExtentAllocator::FragmentationScore

  uint64_t free_units() const;
  uint64_t largest_free_units() const;
};

struct SpaceMap {
  std::vector<OwnedExtent> owned;  // by file and unit; what lies outside every file is in `problems` alone
  std::vector<FileUse> files;      // by file_id
  std::vector<SpaceProblem> problems;
};

// `bad`: units where the device failed; those that an object still owns count as live.
SpaceMap BuildSpaceMap(std::span<const SpaceFile> files, std::vector<OwnedExtent> owned, std::vector<Extent> bad);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_SPACE_MAP_H_
