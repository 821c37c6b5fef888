// Reads ranges of objects and verifies them: plan -> one transfer -> compare sums -> read bad blocks again -> copy out.
//
// A range that begins or ends inside a checksum block needs the whole block; those edge blocks are read into scratch
// memory and copied, the blocks between go straight to the caller. Scratch is bounded: a long list of ranges is served
// in several rounds.

#ifndef TENSORSHELF_STORE_READER_H_
#define TENSORSHELF_STORE_READER_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "index/index.h"
#include "index/record.h"
#include "store/device_set.h"
#include "store/parked_space.h"

namespace tensorshelf {

// One range of one object. Nothing is owned; the caller holds a lease.
struct ReadItem {
  const std::string* name = nullptr;
  const ObjectRecord* record = nullptr;
  const std::string* payload = nullptr;  // inline objects
  uint64_t offset = 0;                   // bytes, in the object
  std::span<std::byte> to;
};

// Thread-safe.
class Reader {
 public:
  Reader(DeviceSet* devices, Index* index) : devices_(devices), index_(index) {}

  // Where a writer keeps what objects need that were dropped while they are read. Call before the first read.
  void set_parked(const ParkedSpace* parked) { parked_ = parked; }

  absl::Status Read(std::span<const ReadItem> items, bool verify, Priority priority);

  // The sums of out.size() blocks from block `first` on, of an object whose record does not hold them. The caller holds
  // a lease. DataLoss: there are no such rows.
  absl::Status ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out);

  uint64_t reread_blocks() const { return reread_blocks_.load(std::memory_order_relaxed); }
  uint64_t corrupt_blocks() const { return corrupt_blocks_.load(std::memory_order_relaxed); }

 private:
  struct Plan;
  absl::Status CheckItem(const ReadItem& item) const;
  absl::Status AddItem(const ReadItem& item, bool verify, Plan& plan) const;
  absl::Status AddPart(const ReadItem& item, uint64_t offset, uint64_t length, std::byte* memory, bool verify,
                       Plan& plan) const;
  absl::Status RunPlan(Plan& plan, bool verify, Priority priority);
  absl::Status VerifyPlan(Plan& plan);
  absl::Status RereadBlock(const ReadItem& item, uint64_t block, uint64_t expected, std::span<std::byte> to);

  DeviceSet* devices_;
  Index* index_;
  const ParkedSpace* parked_ = nullptr;
  std::atomic<uint64_t> reread_blocks_{0};
  std::atomic<uint64_t> corrupt_blocks_{0};
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_READER_H_
