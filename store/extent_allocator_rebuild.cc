// How an allocator comes to be at open: from the extents that the records own, or from the free extents that a clean
// close left. Both check everything before the first change, into a scratch object that the caller swaps in.

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "store/extent_allocator.h"

namespace tensorshelf {
namespace {

std::string UnitsText(const Extent& extent) {
  return absl::StrCat("units [", extent.first_unit, ", ", extent.first_unit + extent.units, ") of data file ",
                      extent.file_id);
}

bool ByPlace(const Extent& a, const Extent& b) {
  return a.file_id != b.file_id ? a.file_id < b.file_id : a.first_unit < b.first_unit;
}

using FileTable = absl::flat_hash_map<uint32_t, SpaceFile>;

// OK when the extent lies in the data area of a known file. Written so that no hostile number can overflow.
absl::Status CheckRange(const FileTable& files, const Extent& extent) {
  const auto found = files.find(extent.file_id);
  if (found == files.end()) return absl::DataLossError(absl::StrCat("data file ", extent.file_id, " is unknown"));
  const SpaceFile& file = found->second;
  if (extent.units == 0) {
    return absl::DataLossError(
        absl::StrCat("an extent of no units at unit ", extent.first_unit, " of data file ", extent.file_id));
  }
  if (extent.first_unit < file.first_unit || extent.first_unit >= file.end_unit ||
      extent.units > file.end_unit - extent.first_unit) {
    return absl::DataLossError(absl::StrCat(extent.units, " units at unit ", extent.first_unit, " of data file ",
                                            extent.file_id, " are not inside its data area [", file.first_unit, ", ",
                                            file.end_unit, ")"));
  }
  return absl::OkStatus();
}

// The parts of `file` that none of `used` (sorted, not overlapping) covers.
template <typename Items, typename ExtentOf>
std::vector<UnitRun> Complement(const SpaceFile& file, const Items& used, ExtentOf extent_of) {
  std::vector<UnitRun> rest;
  uint64_t at = file.first_unit;
  for (const auto& item : used) {
    const Extent& extent = extent_of(item);
    if (extent.first_unit > at) rest.push_back({at, extent.first_unit - at});
    at = extent.end_unit();
  }
  if (at < file.end_unit) rest.push_back({at, file.end_unit - at});
  return rest;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExtentAllocator>> ExtentAllocator::Rebuild(std::span<const SpaceFile> files,
                                                                          std::vector<OwnedExtent> owned) {
  auto allocator = std::make_unique<ExtentAllocator>();
  FileTable table;
  for (const SpaceFile& file : files) {
    TS_RETURN_IF_ERROR(allocator->AddFile(file));
    table[file.file_id] = file;
  }
  for (const OwnedExtent& item : owned) {
    const absl::Status in_range = CheckRange(table, item.extent);
    if (!in_range.ok()) return Annotate(in_range, absl::StrCat("generation ", item.generation));
  }
  std::sort(owned.begin(), owned.end(),
            [](const OwnedExtent& a, const OwnedExtent& b) { return ByPlace(a.extent, b.extent); });
  for (size_t i = 1; i < owned.size(); ++i) {
    const OwnedExtent &low = owned[i - 1], &high = owned[i];
    const bool overlap = low.extent.file_id == high.extent.file_id && high.extent.first_unit < low.extent.end_unit();
    if (overlap && !TS_MUTATE(accept_overlap)) {
      return absl::DataLossError(absl::StrCat("generation ", low.generation, " and generation ", high.generation,
                                              " overlap: ", UnitsText(low.extent), " and ", UnitsText(high.extent)));
    }
  }
  absl::MutexLock lock(&allocator->mutex_);
  for (auto& [id, state] : allocator->files_) {
    const auto begin = std::lower_bound(owned.begin(), owned.end(), id, [](const OwnedExtent& item, uint32_t file_id) {
      return item.extent.file_id < file_id;
    });
    auto end = begin;
    uint64_t live = 0;
    for (; end != owned.end() && end->extent.file_id == id; ++end) live += end->extent.units;
    state.free = FreeRuns(Complement(state.file, std::span(begin, end),
                                     [](const OwnedExtent& item) -> const Extent& { return item.extent; }));
    allocator->CountLocked(state, live, SpaceState::kFree, SpaceState::kLive);
  }
  return allocator;
}

absl::StatusOr<std::unique_ptr<ExtentAllocator>> ExtentAllocator::FromFreeExtents(std::span<const SpaceFile> files,
                                                                                  std::vector<Extent> free) {
  // The free extents play the part of the owned ones: the checks are the same, and the complement is what is live.
  auto allocator = std::make_unique<ExtentAllocator>();
  FileTable table;
  for (const SpaceFile& file : files) {
    TS_RETURN_IF_ERROR(allocator->AddFile(file));
    table[file.file_id] = file;
  }
  for (const Extent& extent : free) TS_RETURN_IF_ERROR(Annotate(CheckRange(table, extent), "free extent"));
  std::sort(free.begin(), free.end(), ByPlace);
  for (size_t i = 1; i < free.size(); ++i) {
    if (free[i - 1].file_id == free[i].file_id && free[i].first_unit <= free[i - 1].end_unit()) {
      return absl::DataLossError(
          absl::StrCat("free extents overlap or touch: ", UnitsText(free[i - 1]), " and ", UnitsText(free[i])));
    }
  }
  absl::MutexLock lock(&allocator->mutex_);
  for (auto& [id, state] : allocator->files_) {
    std::vector<UnitRun> runs;
    auto at = std::lower_bound(free.begin(), free.end(), id,
                               [](const Extent& extent, uint32_t file_id) { return extent.file_id < file_id; });
    for (; at != free.end() && at->file_id == id; ++at) runs.push_back({at->first_unit, at->units});
    state.free = FreeRuns(runs);
    allocator->CountLocked(state, state.file.units() - state.free.units(), SpaceState::kFree, SpaceState::kLive);
  }
  return allocator;
}

}  // namespace tensorshelf
