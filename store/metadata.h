// User metadata of an object as the value of a record's kTlvMetadata:
// u32 count, then for each key in byte order u32 length, key, u32 length, value.

#ifndef TENSORSHELF_STORE_METADATA_H_
#define TENSORSHELF_STORE_METADATA_H_

#include <map>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace tensorshelf {

using Metadata = std::map<std::string, std::string>;

// Empty metadata is the empty string: no TLV is written for it. InvalidArgument when the bytes are over 64 KiB.
absl::StatusOr<std::string> EncodeMetadata(const Metadata& metadata);
// DataLoss naming the entry: a length beyond the end, keys out of order or twice, bytes left over.
absl::StatusOr<Metadata> DecodeMetadata(std::span<const std::byte> bytes);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_METADATA_H_
