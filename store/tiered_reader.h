// Reads through the memory tier: hits are copied, misses that find room are read into the tier and copied from there,
// everything else is read past it. One submission to the device for all misses of a call.

#ifndef TENSORSHELF_STORE_TIERED_READER_H_
#define TENSORSHELF_STORE_TIERED_READER_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/memory_tier.h"
#include "store/reader.h"
#include "store/store.h"

namespace tensorshelf {

// Thread-safe.
class TieredReader {
 public:
  // Both must outlive this.
  TieredReader(Reader* reader, MemoryTier* tier) : reader_(reader), tier_(tier) {}

  // As Reader::Read.
  absl::Status Read(std::span<const ReadItem> items, const ReadOptions& options);

  // Brings whole objects into the tier (`to` of the items is not used). In order; null where one does not lie in the
  // tier afterwards. `ahead`: nobody reads them yet.
  absl::StatusOr<std::vector<std::shared_ptr<TierEntry>>> Hold(std::span<const ReadItem> items,
                                                               const ReadOptions& options, bool ahead);

 private:
  Reader* const reader_;
  MemoryTier* const tier_;
};

// Whether the object's bytes are of the kind that the tier holds: what lies in the index is in memory already.
bool LiesInExtents(const ObjectRecord& record);

// Copies the bytes of a put into `claim` and compares them with the sums of what was written. False: they differ
// (somebody changed them meanwhile), so the claim is to be dropped.
bool FillFromPut(MemoryTier::Claim& claim, std::span<const std::byte> bytes, const ObjectRecord& record,
                 std::span<const uint64_t> sums);

struct MemoryCopy {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  uint64_t length = 0;  // bytes
};
// On several threads where there is much to copy.
void CopyAll(std::span<const MemoryCopy> copies);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_TIERED_READER_H_
