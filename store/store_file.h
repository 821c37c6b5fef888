// The file <shelf>/STORE: text that says what this directory is and where its devices were last seen. A person can read
// and mend it; it holds nothing that the labels and the index do not also know.
//
//   format=1
//   store_uuid=0f8e...
//   device=<uuid> <path hint>      one line per device; the hint is relative to the shelf when it lies inside it
//
// Lines that begin with # and empty lines are skipped. In hints a backslash, newline and carriage return are \\, \n,
// \r.

#ifndef TENSORSHELF_STORE_STORE_FILE_H_
#define TENSORSHELF_STORE_STORE_FILE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/record.h"

namespace tensorshelf {

inline constexpr uint32_t kStoreFileFormat = 1;
inline constexpr uint64_t kStoreFileBytesMax = uint64_t{1} << 20;

struct StoreFile {
  struct Device {
    Uuid uuid{};
    std::string path_hint;
    friend bool operator==(const Device&, const Device&) = default;
  };
  Uuid store_uuid{};
  std::vector<Device> devices;
  std::vector<std::pair<std::string, std::string>> unknown;  // other keys, in order: kept on rewrite

  friend bool operator==(const StoreFile&, const StoreFile&) = default;
};

std::string FormatStoreFile(const StoreFile& store_file);
// DataLoss naming the line and what is wrong with it; FailedPrecondition: a format other than 1.
absl::StatusOr<StoreFile> ParseStoreFile(const std::string& text);

// The hint for a device directory: relative to `shelf` when it is the shelf ("." ) or lies inside it, else as given.
// Both are absolute paths without . or .. in them.
std::string PathHint(const std::string& shelf, const std::string& device);
// The path that a hint means for a shelf at `shelf`.
std::string ResolveHint(const std::string& shelf, const std::string& hint);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_STORE_FILE_H_
