#include "store/metadata.h"

#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "index/record.h"

namespace tensorshelf {
namespace {

std::optional<std::string> ReadText(ByteReader& reader) {
  const auto length = reader.Little<uint32_t>();
  if (!length) return std::nullopt;
  const auto bytes = reader.Bytes(*length);
  if (!bytes) return std::nullopt;
  return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
}

}  // namespace

absl::StatusOr<std::string> EncodeMetadata(const Metadata& metadata) {
  if (metadata.empty()) return std::string();
  uint64_t size = sizeof(uint32_t);
  for (const auto& [key, value] : metadata) size += 2 * sizeof(uint32_t) + key.size() + value.size();
  if (size > kMetadataBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("metadata of ", metadata.size(), " entries takes ", size,
                                                   " bytes; at most ", kMetadataBytesMax, " are possible"));
  }
  std::string bytes;
  bytes.reserve(size);
  ByteWriter writer(&bytes);
  writer.Little(static_cast<uint32_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    writer.Little(static_cast<uint32_t>(key.size()));
    writer.Bytes(BytesOf(key));
    writer.Little(static_cast<uint32_t>(value.size()));
    writer.Bytes(BytesOf(value));
  }
  return bytes;
}

absl::StatusOr<Metadata> DecodeMetadata(std::span<const std::byte> bytes) {
  Metadata metadata;
  if (bytes.empty()) return metadata;
  ByteReader reader(bytes);
  const auto count = reader.Little<uint32_t>();
  if (!count) return absl::DataLossError(absl::StrCat("metadata: ", bytes.size(), " bytes hold no count"));
  for (uint32_t i = 0; i < *count; ++i) {
    auto key = ReadText(reader);
    auto value = key ? ReadText(reader) : std::nullopt;
    if (!value) {
      return absl::DataLossError(absl::StrCat("metadata: entry ", i, " of ", *count, " is cut off, ",
                                              reader.rest().size(), " of ", bytes.size(), " bytes are left"));
    }
    if (!metadata.empty() && *key <= metadata.rbegin()->first) {
      return absl::DataLossError(absl::StrCat("metadata: the key of entry ", i, " is not above the one before it"));
    }
    metadata.emplace_hint(metadata.end(), *std::move(key), *std::move(value));
  }
  if (!reader.rest().empty()) {
    return absl::DataLossError(
        absl::StrCat("metadata: ", reader.rest().size(), " bytes after the last of ", *count, " entries"));
  }
  return metadata;
}

}  // namespace tensorshelf
