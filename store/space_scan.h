// Who owns what, from the records alone: the open procedure's scan of names and objects.

#ifndef TENSORSHELF_STORE_SPACE_SCAN_H_
#define TENSORSHELF_STORE_SPACE_SCAN_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/index.h"
#include "store/commit_queue.h"
#include "store/extent_allocator.h"

namespace tensorshelf {

struct SpaceScan {
  std::unique_ptr<ExtentAllocator> allocator;
  CommitQueue::Counts counts;     // names, objects, shared; not inline_count
  std::vector<uint64_t> orphans;  // generations that no name points to: they stay allocated
};

// Scans `names` and `objects` at the same time. DataLoss: a row that does not decode, a name whose object is missing,
// an extent out of range, or two generations that overlap; nothing may be written then, for what is free is unknown.
absl::StatusOr<SpaceScan> ScanSpace(Index& index, std::span<const SpaceFile> files);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_SPACE_SCAN_H_
