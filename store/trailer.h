// The trailer behind an object's data: record, name at the time of writing, and all sums, so that the object can be
// found again without the index. Bytes: store/FORMAT.md, "Extent, object, trailer".

#ifndef TENSORSHELF_STORE_TRAILER_H_
#define TENSORSHELF_STORE_TRAILER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/record.h"

namespace tensorshelf {

inline constexpr uint32_t kTrailerVersion = 1;
inline constexpr size_t kTrailerHeaderBytes = 80;
inline constexpr uint32_t kTrailerUnitsMax =
    1u << 20;  // 4 GiB: sums of an object of 32 TiB; bounds what a decoder believes

// Units that a trailer takes. `record_bytes` is the length of the encoded record.
uint64_t TrailerUnits(size_t record_bytes, size_t name_bytes, uint64_t sums_count);

// What goes in; nothing is owned.
struct TrailerContent {
  Uuid store_uuid{};
  uint64_t generation = 0;
  uint32_t self_file = 0;
  uint64_t self_unit = 0;
  std::span<const std::byte> record;  // encoded
  std::span<const std::byte> name;
  std::span<const uint64_t> sums;
};

// Fills all of `to`, which must be TrailerUnits(...) * 4096 bytes; the padding is zeros.
void EncodeTrailer(const TrailerContent& content, std::span<std::byte> to);

// The first 80 bytes, with their own hash: says how many units to read.
struct TrailerHeader {
  uint32_t total_units = 0;
  Uuid store_uuid{};
  uint64_t generation = 0;
  uint32_t self_file = 0;
  uint32_t name_bytes = 0;
  uint64_t self_unit = 0;
  uint32_t record_bytes = 0;
  uint64_t sums_count = 0;
};

struct Trailer {
  TrailerHeader header;
  std::string record;  // encoded; decode with index/record_codec.h
  std::string name;
  std::vector<uint64_t> sums;
};

// True when the bytes begin with the trailer's magic: the cheap test for a scan of all units.
bool LooksLikeTrailer(std::span<const std::byte> bytes);
// Needs the first kTrailerHeaderBytes. DataLoss naming magic, version, hash, or a length beyond its limit; the lengths
// that it returns fit into total_units.
absl::StatusOr<TrailerHeader> DecodeTrailerHeader(std::span<const std::byte> bytes);
// Needs header.total_units * 4096 bytes, or more. DataLoss also when the trailer does not say that it lies at
// (file_id, unit), or its store is another: a stale or misdirected copy.
absl::StatusOr<Trailer> DecodeTrailer(std::span<const std::byte> bytes, const Uuid& store_uuid, uint32_t file_id,
                                      uint64_t unit);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_TRAILER_H_
