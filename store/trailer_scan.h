// Finds the trailers in data files by looking at every unit. Internal to store/: salvage.h is the door.

#ifndef TENSORSHELF_STORE_TRAILER_SCAN_H_
#define TENSORSHELF_STORE_TRAILER_SCAN_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "store/shelf_files.h"
#include "store/trailer.h"

namespace tensorshelf {

// All whole trailers of the store in one file's data area, in the order of their places; their sums are all in memory.
// What only looks like one is passed over. `progress` is called with bytes done in this file.
absl::StatusOr<std::vector<Trailer>> ScanTrailers(File& file, const FileRow& row, const Uuid& store_uuid,
                                                  const std::function<void(uint64_t bytes_done)>& progress);

// Reads all stored bytes of `record` from `files` and compares each block with `sums`. DataLoss names the first block
// that does not match.
absl::Status VerifyStoredBytes(const ObjectRecord& record, std::span<const uint64_t> sums,
                               const std::vector<FoundFile>& files);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_TRAILER_SCAN_H_
