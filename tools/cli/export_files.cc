#include "tools/cli/export_files.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "engine/foundation/status_macros.h"
#include "engine/memory.h"
#include "tools/cli/pipeline.h"

namespace tensorshelf::cli {
namespace {

constexpr uint64_t kWindowBytes = uint64_t{32} << 20;  // a multiple of every checksum block
constexpr size_t kWindowRequestsMax = 16384;

struct Piece {
  const Object* object = nullptr;
  uint64_t offset = 0, length = 0;
};
struct Window {
  std::vector<Piece> pieces;
  uint64_t bytes = 0;
};

std::vector<Window> CutIntoWindows(std::span<const Object* const> objects) {
  std::vector<Window> windows;
  for (const Object* object : objects) {
    for (uint64_t offset = 0; offset < object->size_bytes();) {
      // Pieces of one object end at whole windows, so that no checksum block is read twice.
      const uint64_t length = std::min(kWindowBytes, object->size_bytes() - offset);
      if (windows.empty() || windows.back().bytes + length > kWindowBytes ||
          windows.back().pieces.size() == kWindowRequestsMax) {
        windows.emplace_back();
      }
      windows.back().pieces.push_back({object, offset, length});
      windows.back().bytes += length;
      offset += length;
    }
  }
  return windows;
}

}  // namespace

absl::Status AppendObjects(Store& store, std::span<const Object* const> objects, OutputFile& output,
                           const std::function<void(uint64_t bytes_done)>& progress) {
  const std::vector<Window> windows = CutIntoWindows(objects);
  // A window's memory begins with what the window before left over of a unit, so that it can be written as it lies.
  struct Slot {
    MemoryPool::Piece memory;
    uint64_t carried = 0, used = 0;  // bytes; used counts the carried ones
  };
  Slot slots[kSlotCount];
  const std::string pending = output.pending();
  uint64_t done = 0;
  const auto fill = [&](size_t step, size_t slot_index) -> absl::Status {
    Slot& slot = slots[slot_index];
    if (slot.memory.size() == 0) {
      TS_ASSIGN_OR_RETURN(slot.memory, store.memory_pool()->Allocate(kWindowBytes + kUnitBytes));
    }
    const Slot& before = slots[(slot_index + 1) % kSlotCount];
    slot.carried = step == 0 ? pending.size() : before.used % kUnitBytes;
    const void* left =
        step == 0 ? static_cast<const void*>(pending.data()) : before.memory.data() + (before.used - slot.carried);
    std::memcpy(slot.memory.data(), left, slot.carried);
    slot.used = slot.carried + windows[step].bytes;
    std::vector<ReadRequest> requests;
    std::byte* to = slot.memory.data() + slot.carried;
    for (const Piece& piece : windows[step].pieces) {
      requests.push_back({piece.object, piece.offset, {to, piece.length}});
      to += piece.length;
    }
    return store.Read(requests, {});
  };
  const auto drain = [&](size_t step, size_t slot_index) -> absl::Status {
    const Slot& slot = slots[slot_index];
    TS_RETURN_IF_ERROR(output.AppendBehindPending(std::span<const std::byte>(slot.memory.data(), slot.used)));
    done += windows[step].bytes;
    if (progress) progress(done);
    return absl::OkStatus();
  };
  return RunPipeline(windows.size(), fill, drain);
}

absl::Status PublishAll(Disk& disk, std::vector<OutputFile>& outputs) {
  for (OutputFile& output : outputs) TS_RETURN_IF_ERROR(output.Sync());
  std::set<std::string> directories;
  for (OutputFile& output : outputs) {
    TS_RETURN_IF_ERROR(output.Publish());
    directories.insert(output.directory());
  }
  for (const std::string& directory : directories) TS_RETURN_IF_ERROR(disk.SyncDirectory(directory));
  return absl::OkStatus();
}

}  // namespace tensorshelf::cli
