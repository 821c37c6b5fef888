// The first half of a put: reserve space, write the bytes with their sums, then the trailers. Nothing is visible
// afterwards and nothing has to be undone after a crash: no record names the space.

#ifndef TENSORSHELF_STORE_STAGER_H_
#define TENSORSHELF_STORE_STAGER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "store/device_set.h"
#include "store/extent_allocator.h"
#include "store/staged_object.h"

namespace tensorshelf {

// Thread-safe.
class Stager {
 public:
  struct Context {
    DeviceSet* devices = nullptr;
    ExtentAllocator* allocator = nullptr;
    const StoreOptions* options = nullptr;
    Uuid store_uuid{};
    uint64_t epoch = 0;
    // Frees what can be freed; called once when a reservation fails, before it is tried again.
    std::function<void()> reclaim;
    // The object of a name with a lease on it, for skip_unchanged.
    std::function<absl::StatusOr<Object>(const std::string& name)> find;
    // The sum of the first block of an object that lies in extents.
    std::function<absl::StatusOr<uint64_t>(const ObjectRecord& record)> first_sum;
  };
  explicit Stager(Context context) : context_(std::move(context)) {}

  // All of `items` or none. Statuses as Transaction::Put. `lone`: nothing else is committed with them. `may_skip` says,
  // asked once for each item with skip_unchanged in their order, whether what is committed under its name can be
  // compared with.
  absl::StatusOr<std::vector<StagedObject>> Stage(std::span<const PutItem> items, bool lone,
                                                  const std::function<bool(const PutItem& item)>& may_skip);

  // The device refused to write these units of `space`: they are never handed out again. The rest stays reserved.
  void MarkBad(const Extent& bad, ReservedSpace& space);
  // Units of failed writes since the last call; the commit thread records them.
  std::vector<Extent> TakeBadUnits();

 private:
  struct Work;
  absl::Status CheckItem(const PutItem& item) const;
  absl::StatusOr<bool> FindUnchanged(const PutItem& item, StagedObject& staged) const;
  absl::StatusOr<ObjectRecord> NewRecord(const PutItem& item, uint64_t inline_bytes_max);
  uint64_t TrailerUnitsFor(const PutItem& item, const ObjectRecord& record) const;
  absl::Status Reserve(std::vector<Work>& works);
  absl::Status ReserveSmall(std::span<Work* const> works);
  absl::Status ReserveLarge(Work& work);
  absl::Status ReserveTrailer(Work& work);
  absl::Status WriteData(std::vector<Work>& works);
  absl::Status WriteTrailers(std::vector<Work>& works);
  absl::Status Transfer(std::vector<Work>& works, std::vector<Segment> segments, std::vector<DataFile*> owners,
                        std::vector<size_t> work_of_segment);
  void FinishRecord(Work& work) const;

  const Context context_;
  std::atomic<uint64_t> counter_{0};  // low 40 bits of the next generation
  absl::Mutex mutex_;                 // a leaf
  std::vector<Extent> bad_units_ ABSL_GUARDED_BY(mutex_);
};

// XXH3-128 over dtype, block size, kind, shape and the 128-bit hashes of the blocks: equal fingerprints mean equal
// content.
std::array<uint8_t, 16> FingerprintOf(const ObjectRecord& record, std::span<const Sum128> block_hashes);

// The 128-bit hash of each block, on several threads where there is much to hash.
std::vector<Sum128> HashBlocks(std::span<const std::byte> bytes, uint8_t block_log2);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_STAGER_H_
