#include "store/witness_slot.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "store/label.h"

namespace tensorshelf {
namespace {

constexpr char kMagic[] = "TSHWITNS";
constexpr size_t kHashAt = kSlotBytes - sizeof(uint64_t);
static_assert(kSlotsOffset + uint64_t{kSlotCount} * kSlotBytes <= kDataBegin);

// Aligned memory, so that the transfer takes the same direct path as the data's.
struct alignas(kSlotBytes) SlotBlock {
  std::array<std::byte, kSlotBytes> bytes{};
};

bool AllZeros(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

// Whether the slot found at `index` is this file's, and where it belongs.
absl::Status CheckOwner(const WitnessSlot& slot, const Uuid& store_uuid, uint32_t file_id, uint32_t index) {
  if (slot.store_uuid != store_uuid) return absl::DataLossError("store_uuid is another store's");
  if (slot.file_id != file_id) {
    return absl::DataLossError(absl::StrCat("file_id is ", slot.file_id, ", not ", file_id));
  }
  if (slot.slot_seq % kSlotCount != index) {
    return absl::DataLossError(
        absl::StrCat("slot_seq ", slot.slot_seq, " belongs into slot ", slot.slot_seq % kSlotCount));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t SlotOffset(uint64_t slot_seq) { return kSlotsOffset + slot_seq % kSlotCount * kSlotBytes; }

void EncodeSlot(const WitnessSlot& slot, std::span<std::byte, kSlotBytes> to) {
  std::ranges::fill(to, std::byte{0});
  std::byte* at = to.data();
  std::memcpy(at, kMagic, 8);
  StoreLittle(at + 8, kSlotVersion);
  StoreLittle(at + 12, slot.file_id);
  std::memcpy(at + 16, slot.store_uuid.data(), 16);
  StoreLittle(at + 32, slot.slot_seq);
  StoreLittle(at + 40, slot.epoch);
  StoreLittle(at + 48, slot.durable_commit);
  StoreLittle(at + 56, static_cast<uint8_t>(slot.clean));
  StoreLittle(at + 64, slot.filled_until_bytes);
  StoreLittle(at + kHashAt, Hash64(to.first(kHashAt)));
}

absl::StatusOr<WitnessSlot> DecodeSlot(std::span<const std::byte> bytes) {
  if (bytes.size() < kSlotBytes) {
    return absl::DataLossError(absl::StrCat("only ", bytes.size(), " of ", kSlotBytes, " bytes"));
  }
  const std::byte* at = bytes.data();
  if (std::memcmp(at, kMagic, 8) != 0) return absl::DataLossError("magic is not \"TSHWITNS\"");
  const uint32_t version = LoadLittle<uint32_t>(at + 8);
  if (version != kSlotVersion) {
    return absl::DataLossError(absl::StrCat("version is ", version, ", this build reads ", kSlotVersion));
  }
  const uint64_t stored = LoadLittle<uint64_t>(at + kHashAt);
  const uint64_t computed = Hash64(bytes.first(kHashAt));
  if (stored != computed) {
    return absl::DataLossError(absl::StrCat("hash is ", absl::Hex(stored), ", the bytes have ", absl::Hex(computed)));
  }
  WitnessSlot slot;
  slot.file_id = LoadLittle<uint32_t>(at + 12);
  std::memcpy(slot.store_uuid.data(), at + 16, 16);
  slot.slot_seq = LoadLittle<uint64_t>(at + 32);
  slot.epoch = LoadLittle<uint64_t>(at + 40);
  slot.durable_commit = LoadLittle<uint64_t>(at + 48);
  slot.clean = LoadLittle<uint8_t>(at + 56) == 1;  // anything else is not a promise
  slot.filled_until_bytes = LoadLittle<uint64_t>(at + 64);
  return slot;
}

absl::Status WriteSlot(File& file, const WitnessSlot& slot) {
  SlotBlock block;
  EncodeSlot(slot, block.bytes);
  return WriteExactly(file, SlotOffset(slot.slot_seq), block.bytes);
}

absl::StatusOr<SlotsReading> ReadSlots(File& file, const Uuid& store_uuid, uint32_t file_id) {
  SlotsReading reading;
  SlotBlock block;
  for (uint32_t index = 0; index < kSlotCount; ++index) {
    TS_RETURN_IF_ERROR(ReadExactly(file, SlotOffset(index), block.bytes));
    if (AllZeros(block.bytes)) {
      ++reading.empty_count;
      continue;
    }
    absl::StatusOr<WitnessSlot> slot = DecodeSlot(block.bytes);
    const absl::Status status = slot.ok() ? CheckOwner(*slot, store_uuid, file_id, index) : slot.status();
    if (!status.ok()) {
      ++reading.damaged_count;
      reading.damaged.push_back(absl::StrCat("slot ", index, " at ", SlotOffset(index), ": ", status.message()));
      continue;
    }
    ++reading.valid_count;
    reading.durable_commit_max = std::max(reading.durable_commit_max, slot->durable_commit);
    reading.epoch_max = std::max(reading.epoch_max, slot->epoch);
    if (!reading.newest || slot->slot_seq > reading.newest->slot_seq) reading.newest = *slot;
  }
  return reading;
}

}  // namespace tensorshelf
