#include <algorithm>
#include <cstring>
#include <thread>

#include "engine/foundation/little_endian.h"
#include "engine/foundation/processor_count.h"
#include "store/stager.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kBytesPerThread = uint64_t{32} << 20;  // below this a thread costs more than it saves

}  // namespace

std::array<uint8_t, 16> FingerprintOf(const ObjectRecord& record, std::span<const Sum128> block_hashes) {
  std::string input;
  input.reserve(8 + 8 * record.shape.size() + 16 * block_hashes.size());
  ByteWriter writer(&input);
  writer.Little(record.dtype);
  writer.Little(static_cast<uint8_t>(record.kind));
  writer.Little(record.block_log2);
  writer.Little(static_cast<uint32_t>(record.shape.size()));
  for (const uint64_t dimension : record.shape) writer.Little(dimension);
  for (const Sum128& hash : block_hashes) {
    writer.Little(hash.low);
    writer.Little(hash.high);
  }
  const Sum128 sum = Hash128(BytesOf(input));
  std::array<uint8_t, 16> fingerprint;
  std::memcpy(fingerprint.data(), &sum.low, 8);
  std::memcpy(fingerprint.data() + 8, &sum.high, 8);
  return fingerprint;
}

std::vector<Sum128> HashBlocks(std::span<const std::byte> bytes, uint8_t block_log2) {
  const uint64_t block = uint64_t{1} << block_log2;
  std::vector<Sum128> hashes((bytes.size() + block - 1) / block);
  const auto hash_range = [&](size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) {
      hashes[i] = Hash128(bytes.subspan(i * block, std::min<uint64_t>(block, bytes.size() - i * block)));
    }
  };
  const size_t thread_count =
      std::clamp<size_t>(bytes.size() / kBytesPerThread, 1, std::min<size_t>(ProcessorCount(), 8));
  std::vector<std::thread> threads;
  for (size_t i = 1; i < thread_count; ++i) {
    threads.emplace_back(hash_range, hashes.size() * i / thread_count, hashes.size() * (i + 1) / thread_count);
  }
  hash_range(0, hashes.size() / thread_count);
  for (std::thread& thread : threads) thread.join();
  return hashes;
}

}  // namespace tensorshelf
