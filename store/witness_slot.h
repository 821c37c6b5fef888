// The witness: which commit was durable when data was last synced into this file. Sixteen 4 KiB slots, written in turn
// and carried by the same fdatasync as the data, so that an index that lost acknowledged commits is found out at the
// next open. Bytes: store/FORMAT.md, "Data file".

#ifndef TENSORSHELF_STORE_WITNESS_SLOT_H_
#define TENSORSHELF_STORE_WITNESS_SLOT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "index/record.h"

namespace tensorshelf {

inline constexpr size_t kSlotBytes = 4096;
inline constexpr uint32_t kSlotCount = 16;
inline constexpr uint32_t kSlotVersion = 1;

struct WitnessSlot {
  uint32_t file_id = 0;
  Uuid store_uuid{};
  uint64_t slot_seq = 0;  // rises by one with each slot written into this file; 1 is the first
  uint64_t epoch = 0;
  uint64_t durable_commit = 0;      // acknowledged before this slot was written
  bool clean = false;               // written by a close after which nothing followed
  uint64_t filled_until_bytes = 0;  // fill mark: [data_begin, this) has been written once

  friend bool operator==(const WitnessSlot&, const WitnessSlot&) = default;
};

uint64_t SlotOffset(uint64_t slot_seq);  // bytes from the start of the file

void EncodeSlot(const WitnessSlot& slot, std::span<std::byte, kSlotBytes> to);
// DataLoss naming magic, version or hash.
absl::StatusOr<WitnessSlot> DecodeSlot(std::span<const std::byte> bytes);

// One write of 4 KiB at SlotOffset(slot.slot_seq). Not synced: the caller's fdatasync makes it durable with the data.
absl::Status WriteSlot(File& file, const WitnessSlot& slot);

struct SlotsReading {
  std::optional<WitnessSlot> newest;  // the valid one with the highest slot_seq
  uint64_t durable_commit_max = 0;    // over all valid slots
  uint64_t epoch_max = 0;             // over all valid slots
  uint32_t valid_count = 0;
  uint32_t empty_count = 0;          // never written: all zeros
  uint32_t damaged_count = 0;        // anything else: torn, of another store or file, or in the wrong place
  std::vector<std::string> damaged;  // one line each
};

// Errors only for reads that fail; damage is counted, not an error (a torn slot is legal after a crash).
absl::StatusOr<SlotsReading> ReadSlots(File& file, const Uuid& store_uuid, uint32_t file_id);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_WITNESS_SLOT_H_
