#include "index/record_cache.h"

namespace tensorshelf {
namespace {

// What std::make_shared adds before the object.
constexpr uint64_t kSharedBytes = 16;

uint64_t AllocatedBytes(const std::string& text) {
  return text.capacity() <= 15 ? 0 : text.capacity() + 1;  // up to 15 bytes lie in the string itself
}

uint64_t AllocatedBytes(const std::vector<Tlv>& tlvs) {
  uint64_t bytes = tlvs.capacity() * sizeof(Tlv);
  for (const Tlv& tlv : tlvs) bytes += AllocatedBytes(tlv.value);
  return bytes;
}

}  // namespace

uint64_t MemoryBytes(const NameRow& row) { return AllocatedBytes(row.tlvs); }

uint64_t MemoryBytes(const ObjectRecord& record) {
  uint64_t bytes = sizeof(record) + record.columns.capacity() * sizeof(record.columns[0]);
  for (const auto& column : record.columns) bytes += column.capacity() * sizeof(Extent);
  bytes += (record.shape.capacity() + record.sums.capacity()) * sizeof(uint64_t);
  return bytes + AllocatedBytes(record.tlvs);
}

uint64_t MemoryBytes(const CachedRecord& cached) {
  uint64_t bytes = kSharedBytes + MemoryBytes(*cached.record);
  if (cached.payload != nullptr) bytes += kSharedBytes + sizeof(std::string) + AllocatedBytes(*cached.payload);
  return bytes;
}

// A name costs about 150 bytes, a record about 500.
RecordCache::RecordCache(uint64_t bytes_max) : names_(bytes_max / 4), records_(bytes_max - bytes_max / 4) {}

void RecordCache::Clear() {
  names_.Clear();
  records_.Clear();
}

}  // namespace tensorshelf
