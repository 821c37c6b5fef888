// Who uses the space of a shelf: by file, by tier, by the beginnings of names. What df and map show.

#ifndef TENSORSHELF_TOOLS_CLI_SHELF_SPACE_H_
#define TENSORSHELF_TOOLS_CLI_SHELF_SPACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "store/space_map.h"
#include "store/store.h"

namespace tensorshelf::cli {

// Names that begin alike, up to their first / or . and with it. Those that have neither are together, under "".
struct PrefixUse {
  std::string label;
  uint64_t names = 0;
  uint64_t size = 0;    // bytes of the objects, counted for each name
  uint64_t space = 0;   // bytes in data files, trailers and padding included, of objects that only names here point to
  uint64_t shared = 0;  // the same of objects that names elsewhere point to as well
};

struct ShelfSpace {
  StoreInfo info;
  SpaceMap map;
  std::vector<PrefixUse> prefixes;    // largest space first
  std::vector<int32_t> owner_prefix;  // of each of map.owned: its position in `prefixes`; -1: no name points to it
  uint64_t names = 0;
  uint64_t damaged_names = 0;  // whose record cannot be read
  // Bytes of data files.
  uint64_t capacity = 0, live = 0, free = 0, bad = 0;
  uint64_t shared = 0;       // of live: objects with two names or more
  uint64_t nameless = 0;     // of live: objects that no name points to
  uint64_t index_bytes = 0;  // the index's files
};

// Reads all names and records; memory for some 50 bytes a name.
absl::StatusOr<ShelfSpace> CollectSpace(Store& store);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_SHELF_SPACE_H_
