// validate=True: the bytes of one call, read from the file once more by another way, are what they should be.

#ifndef TENSORSHELF_PYTHON_AIO_VALIDATION_H_
#define TENSORSHELF_PYTHON_AIO_VALIDATION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/external_files.h"
#include "engine/foundation/hash.h"

namespace tensorshelf {

// One sum for each MiB.
std::vector<Sum128> SumsOf(std::span<const std::byte> bytes);

// Reads `length` bytes at `offset` through the page cache and compares. DataLoss names the first MiB that differs.
absl::Status CompareWithFile(ExternalFiles& files, const std::string& path, uint64_t offset, uint64_t length,
                             const std::vector<Sum128>& sums);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_AIO_VALIDATION_H_
