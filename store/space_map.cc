#include "store/space_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tensorshelf {
namespace {

std::string UnitsText(const Extent& extent) {
  return absl::StrCat("units [", extent.first_unit, ", ", extent.first_unit + extent.units, ") of data file ",
                      extent.file_id);
}

bool ByPlace(const Extent& a, const Extent& b) {
  return a.file_id != b.file_id ? a.file_id < b.file_id : a.first_unit < b.first_unit;
}

// Empty when the extent lies inside its file; no number in it can overflow.
std::string OutsideText(std::span<const SpaceFile> files, const Extent& extent) {
  const auto file = std::ranges::find(files, extent.file_id, &SpaceFile::file_id);
  if (file == files.end()) return absl::StrCat("data file ", extent.file_id, " is unknown");
  if (extent.units > 0 && extent.first_unit >= file->first_unit && extent.first_unit < file->end_unit &&
      extent.units <= file->end_unit - extent.first_unit) {
    return "";
  }
  return absl::StrCat(extent.units, " units at unit ", extent.first_unit, " of data file ", extent.file_id,
                      " are not inside its data area [", file->first_unit, ", ", file->end_unit, ")");
}

// The parts of [begin, end) that `used`, sorted by place and possibly overlapping, leaves.
std::vector<UnitRun> Rest(uint64_t begin, uint64_t end, std::span<const Extent> used) {
  std::vector<UnitRun> rest;
  for (const Extent& extent : used) {
    if (extent.end_unit() <= begin) continue;
    if (extent.first_unit >= end) break;
    if (extent.first_unit > begin) rest.push_back({begin, extent.first_unit - begin});
    begin = extent.end_unit();
  }
  if (begin < end) rest.push_back({begin, end - begin});
  return rest;
}

uint64_t Sum(std::span<const UnitRun> runs) {
  uint64_t units = 0;
  for (const UnitRun& run : runs) units += run.units;
  return units;
}

double Fragmentation(std::span<const UnitRun> free) {
  double actual = 0;
  for (const UnitRun& run : free) actual += FreeRuns::WorthOfRun(static_cast<double>(run.units));
  const auto units = static_cast<double>(Sum(free));
  const double ideal = FreeRuns::WorthOfRun(units);
  return ideal <= units ? 0 : (ideal - actual) / (ideal - units);
}

}  // namespace

uint64_t FileUse::free_units() const { return Sum(free); }

uint64_t FileUse::largest_free_units() const {
  uint64_t largest = 0;
  for (const UnitRun& run : free) largest = std::max(largest, run.units);
  return largest;
}

SpaceMap BuildSpaceMap(std::span<const SpaceFile> files, std::vector<OwnedExtent> owned, std::vector<Extent> bad) {
  SpaceMap map;
  std::erase_if(owned, [&](const OwnedExtent& item) {
    const std::string outside = OutsideText(files, item.extent);
    if (outside.empty()) return false;
    map.problems.push_back({item, 0, absl::StrCat("generation ", item.generation, ": ", outside)});
    return true;
  });
  std::ranges::sort(owned, [](const auto& a, const auto& b) { return ByPlace(a.extent, b.extent); });
  // The extent that reaches furthest so far, not the one before: a long one may overlap with many.
  const OwnedExtent* furthest = nullptr;
  for (const OwnedExtent& item : owned) {
    if (furthest != nullptr && furthest->extent.file_id == item.extent.file_id &&
        item.extent.first_unit < furthest->extent.end_unit()) {
      map.problems.push_back(
          {item, furthest->generation,
           absl::StrCat("generation ", furthest->generation, " and generation ", item.generation,
                        " overlap: ", UnitsText(furthest->extent), " and ", UnitsText(item.extent))});
      if (item.extent.end_unit() <= furthest->extent.end_unit()) continue;
    }
    furthest = &item;
  }
  std::ranges::sort(bad, ByPlace);
  for (const SpaceFile& file : files) {
    const auto begin =
        std::ranges::lower_bound(owned, file.file_id, {}, [](const OwnedExtent& item) { return item.extent.file_id; });
    std::vector<Extent> used;
    for (auto at = begin; at != owned.end() && at->extent.file_id == file.file_id; ++at) used.push_back(at->extent);
    std::vector<Extent> failed;
    std::ranges::copy_if(bad, std::back_inserter(failed),
                         [&](const Extent& extent) { return extent.file_id == file.file_id; });
    FileUse use;
    use.file = file;
    const std::vector<UnitRun> not_live = Rest(file.first_unit, file.end_unit, used);
    use.live_units = file.units() - Sum(not_live);
    for (const UnitRun& run : not_live) {
      const std::vector<UnitRun> whole = Rest(run.first, run.end(), failed);
      use.free.insert(use.free.end(), whole.begin(), whole.end());
    }
    use.bad_units = Sum(not_live) - Sum(use.free);
    use.fragmentation = Fragmentation(use.free);
    map.files.push_back(std::move(use));
  }
  map.owned = std::move(owned);
  return map;
}

}  // namespace tensorshelf
