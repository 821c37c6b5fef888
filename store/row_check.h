// Checks every row of the index against its own sums, its key, and the rows that it belongs with. Internal to store/:
// structure_check.h is the door.

#ifndef TENSORSHELF_STORE_ROW_CHECK_H_
#define TENSORSHELF_STORE_ROW_CHECK_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "index/index.h"
#include "store/extent_allocator.h"
#include "store/structure_check.h"

namespace tensorshelf {

// A finding, and the rows that mend it; null: nothing in the index does.
struct RowFinding {
  Finding finding;
  std::function<void(CommitBatch& batch)> mend;
};

struct RowCheck {
  std::vector<OwnedExtent> owned;  // of every record that decodes that far
  std::vector<uint64_t> nameless;  // generations in `objects` that no name points to, rising
  // Generations with two names or more, and how many; rising.
  std::vector<std::pair<uint64_t, uint64_t>> shared;
  uint64_t names = 0, objects = 0, inline_objects = 0;
  uint64_t distinct_inline = 0;  // inline generations that names point to
};

// Reads all rows of names, objects, sums and inline. `found` is called for each finding. A status: a family cannot be
// read on, as where RocksDB finds a damaged file; what came before has been said.
absl::Status CheckRows(Index& index, RowCheck* check, const std::function<void(RowFinding)>& found);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_ROW_CHECK_H_
