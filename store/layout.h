// Where an object's stored bytes lie: columns, stripes and extents turned into runs in files. Pure arithmetic.
//
// Example: 5 pieces of 2^stripe_log2 bytes over 2 columns. Column 0 holds pieces 0, 2, 4, column 1 holds 1, 3; inside
// its column piece p begins at (p / 2) << stripe_log2, and a column is the concatenation of its extents.

#ifndef TENSORSHELF_STORE_LAYOUT_H_
#define TENSORSHELF_STORE_LAYOUT_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "index/record.h"

namespace tensorshelf {

// `length` bytes that are contiguous in a file and in the object.
struct FileRun {
  uint32_t file_id = 0;
  uint64_t file_offset = 0;    // bytes
  uint64_t object_offset = 0;  // bytes
  uint64_t length = 0;         // bytes
};

// Bytes of the object that column `column` of `columns` holds.
uint64_t ColumnBytes(uint64_t stored_bytes, uint8_t stripe_log2, uint32_t columns, uint32_t column);

// OK when the columns hold exactly the units that stored_bytes needs. DataLoss otherwise: a record that claims less
// would make reads leave its extents.
absl::Status CheckLayout(const ObjectRecord& record);

// The runs of [offset, offset + length), in the object's order; the range must lie in the object and the record must
// have passed CheckLayout.
std::vector<FileRun> RunsOf(const ObjectRecord& record, uint64_t offset, uint64_t length);

// Every extent: the columns' and the trailer.
std::vector<Extent> ExtentsOf(const ObjectRecord& record);

inline uint64_t UnitsFor(uint64_t bytes) { return (bytes + kUnitBytes - 1) / kUnitBytes; }

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_LAYOUT_H_
