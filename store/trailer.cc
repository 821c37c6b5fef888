#include "store/trailer.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

constexpr char kMagic[] = "TSHTRAIL";
constexpr size_t kHeaderHashAt = 72;
constexpr size_t kHashBytes = sizeof(uint64_t);

std::string TextOf(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::Status HashMismatch(const char* which, uint64_t stored, uint64_t computed) {
  return absl::DataLossError(
      absl::StrCat("trailer: ", which, " hash is ", absl::Hex(stored), ", the bytes have ", absl::Hex(computed)));
}

}  // namespace

uint64_t TrailerUnits(size_t record_bytes, size_t name_bytes, uint64_t sums_count) {
  const uint64_t bytes = kTrailerHeaderBytes + record_bytes + name_bytes + sums_count * sizeof(uint64_t) + kHashBytes;
  return (bytes + kUnitBytes - 1) / kUnitBytes;
}

void EncodeTrailer(const TrailerContent& content, std::span<std::byte> to) {
  const uint64_t units = TrailerUnits(content.record.size(), content.name.size(), content.sums.size());
  TS_CHECK(units <= kTrailerUnitsMax && to.size() == units * kUnitBytes);
  std::byte* at = to.data();
  std::memcpy(at, kMagic, 8);
  StoreLittle(at + 8, kTrailerVersion);
  StoreLittle(at + 12, static_cast<uint32_t>(units));
  std::memcpy(at + 16, content.store_uuid.data(), 16);
  StoreLittle(at + 32, content.generation);
  StoreLittle(at + 40, content.self_file);
  StoreLittle(at + 44, static_cast<uint32_t>(content.name.size()));
  StoreLittle(at + 48, content.self_unit);
  StoreLittle(at + 56, static_cast<uint32_t>(content.record.size()));
  StoreLittle(at + 60, uint32_t{0});
  StoreLittle(at + 64, uint64_t{content.sums.size()});
  StoreLittle(at + kHeaderHashAt, Hash64(to.first(kHeaderHashAt)));
  auto next = std::ranges::copy(content.record, to.begin() + kTrailerHeaderBytes).out;
  next = std::ranges::copy(content.name, next).out;
  next = std::ranges::copy(std::as_bytes(content.sums), next).out;
  std::fill(next, to.end(), std::byte{0});
  StoreLittle(at + to.size() - kHashBytes, Hash64(to.first(to.size() - kHashBytes)));
}

bool LooksLikeTrailer(std::span<const std::byte> bytes) {
  return bytes.size() >= 8 && std::memcmp(bytes.data(), kMagic, 8) == 0;
}

absl::StatusOr<TrailerHeader> DecodeTrailerHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kTrailerHeaderBytes) {
    return absl::DataLossError(absl::StrCat("trailer: only ", bytes.size(), " of ", kTrailerHeaderBytes, " bytes"));
  }
  if (!LooksLikeTrailer(bytes)) return absl::DataLossError("trailer: magic is not \"TSHTRAIL\"");
  const std::byte* at = bytes.data();
  const uint32_t version = LoadLittle<uint32_t>(at + 8);
  if (version != kTrailerVersion) {
    return absl::DataLossError(absl::StrCat("trailer: version is ", version, ", this build reads ", kTrailerVersion));
  }
  const uint64_t stored = LoadLittle<uint64_t>(at + kHeaderHashAt);
  const uint64_t computed = Hash64(bytes.first(kHeaderHashAt));
  if (stored != computed) return HashMismatch("header", stored, computed);

  TrailerHeader header;
  header.total_units = LoadLittle<uint32_t>(at + 12);
  std::memcpy(header.store_uuid.data(), at + 16, 16);
  header.generation = LoadLittle<uint64_t>(at + 32);
  header.self_file = LoadLittle<uint32_t>(at + 40);
  header.name_bytes = LoadLittle<uint32_t>(at + 44);
  header.self_unit = LoadLittle<uint64_t>(at + 48);
  header.record_bytes = LoadLittle<uint32_t>(at + 56);
  header.sums_count = LoadLittle<uint64_t>(at + 64);
  if (header.total_units > kTrailerUnitsMax) {
    return absl::DataLossError(
        absl::StrCat("trailer: total_units is ", header.total_units, ", over ", kTrailerUnitsMax));
  }
  if (header.name_bytes > kNameBytesMax) {
    return absl::DataLossError(absl::StrCat("trailer: name_len is ", header.name_bytes, ", over ", kNameBytesMax));
  }
  // Bounds the product below before it is formed.
  if (header.sums_count > uint64_t{kTrailerUnitsMax} * kUnitBytes / sizeof(uint64_t)) {
    return absl::DataLossError(absl::StrCat("trailer: sums_count is ", header.sums_count, ", too many"));
  }
  const uint64_t units = TrailerUnits(header.record_bytes, header.name_bytes, header.sums_count);
  if (units != header.total_units) {
    return absl::DataLossError(
        absl::StrCat("trailer: total_units is ", header.total_units, ", the lengths need ", units));
  }
  return header;
}

absl::StatusOr<Trailer> DecodeTrailer(std::span<const std::byte> bytes, const Uuid& store_uuid, uint32_t file_id,
                                      uint64_t unit) {
  Trailer trailer;
  TS_ASSIGN_OR_RETURN(trailer.header, DecodeTrailerHeader(bytes));
  const TrailerHeader& header = trailer.header;
  if (header.store_uuid != store_uuid) return absl::DataLossError("trailer: store_uuid is another store's");
  if (header.self_file != file_id || header.self_unit != unit) {
    return absl::DataLossError(absl::StrCat("trailer: found at unit ", unit, " of data file ", file_id,
                                            ", written for unit ", header.self_unit, " of ", header.self_file));
  }
  const uint64_t length = uint64_t{header.total_units} * kUnitBytes;
  if (bytes.size() < length) {
    return absl::DataLossError(absl::StrCat("trailer: only ", bytes.size(), " of ", length, " bytes"));
  }
  bytes = bytes.first(length);
  const uint64_t stored = LoadLittle<uint64_t>(bytes.data() + length - kHashBytes);
  const uint64_t computed = Hash64(bytes.first(length - kHashBytes));
  if (stored != computed) return HashMismatch("whole", stored, computed);

  size_t at = kTrailerHeaderBytes;
  trailer.record = TextOf(bytes.subspan(at, header.record_bytes));
  at += header.record_bytes;
  trailer.name = TextOf(bytes.subspan(at, header.name_bytes));
  at += header.name_bytes;
  trailer.sums.resize(header.sums_count);
  std::ranges::copy(bytes.subspan(at, header.sums_count * sizeof(uint64_t)),
                    std::as_writable_bytes(std::span(trailer.sums)).begin());
  return trailer;
}

}  // namespace tensorshelf
