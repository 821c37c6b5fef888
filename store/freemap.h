// The file <shelf>/freemap: the allocator's state and the counts at a clean close, so that the next open need not scan
// the records. A cache: valid only for the exact (store, epoch, commit) that it names; anything else means scanning.

#ifndef TENSORSHELF_STORE_FREEMAP_H_
#define TENSORSHELF_STORE_FREEMAP_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/record.h"
#include "store/extent_allocator.h"

namespace tensorshelf {

struct Freemap {
  struct FileMap {
    SpaceFile file;
    SpaceCounters counters;
    std::vector<UnitRun> free;  // by place, not touching

    friend bool operator==(const FileMap&, const FileMap&) = default;
  };
  struct SharedGeneration {
    uint64_t generation = 0;
    uint64_t names = 0;  // >= 2
    friend bool operator==(const SharedGeneration&, const SharedGeneration&) = default;
  };

  Uuid store_uuid{};
  uint64_t epoch = 0;
  uint64_t commit = 0;
  uint64_t name_count = 0;
  uint64_t object_count = 0;
  std::vector<FileMap> files;            // by file_id
  std::vector<SharedGeneration> shared;  // generations that more than one name points to, rising
  std::vector<uint64_t> orphans;         // generations that no name points to, rising

  friend bool operator==(const Freemap&, const Freemap&) = default;
};

// The lists must be sorted as described; aborts otherwise.
std::string EncodeFreemap(const Freemap& freemap);
// DataLoss naming magic, version, hash or the field that does not hold: order, range, counters that do not sum to the
// capacity or do not agree with the free runs. The caller compares store, epoch and commit.
absl::StatusOr<Freemap> DecodeFreemap(const std::string& bytes);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_FREEMAP_H_
