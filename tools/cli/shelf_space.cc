#include "tools/cli/shelf_space.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <span>

#include "engine/foundation/status_macros.h"
#include "tools/cli/listing.h"

namespace tensorshelf::cli {
namespace {

// One name's claim on its object.
struct Use {
  uint64_t generation = 0;
  uint64_t units = 0;
  int32_t prefix = 0;
};

std::string LabelOf(const std::string& name) {
  const size_t separator = name.find_first_of("/.");
  return separator == std::string::npos ? "" : name.substr(0, separator + 1);
}

uint64_t UnitsOf(const ObjectRecord& record) {
  uint64_t units = record.trailer.units;
  for (const std::vector<Extent>& column : record.columns) {
    for (const Extent& extent : column) units += extent.units;
  }
  return units;
}

absl::StatusOr<std::vector<Use>> CollectUses(Store& store, ShelfSpace* space) {
  std::vector<Use> uses;
  std::map<std::string, int32_t> known;
  TS_RETURN_IF_ERROR(VisitRecords(store, {}, [&](const ListedRecord& listed) {
    ++space->names;
    if (!listed.status.ok()) {
      ++space->damaged_names;
      return true;
    }
    const auto [prefix, is_new] = known.try_emplace(LabelOf(listed.name), static_cast<int32_t>(known.size()));
    if (is_new) space->prefixes.push_back({prefix->first});
    PrefixUse& use = space->prefixes[prefix->second];
    ++use.names;
    use.size += listed.record.logical_bytes;
    uses.push_back({listed.record.generation, UnitsOf(listed.record), prefix->second});
    return true;
  }));
  std::ranges::sort(uses, {}, [](const Use& use) { return std::pair(use.generation, use.prefix); });
  return uses;
}

// Charges each object to the prefixes of its names.
void Charge(std::span<const Use> uses, ShelfSpace* space) {
  for (size_t i = 0; i < uses.size();) {
    size_t end = i + 1;
    while (end < uses.size() && uses[end].generation == uses[i].generation) ++end;
    const uint64_t bytes = uses[i].units * kUnitBytes;
    if (end - i > 1) space->shared += bytes;
    const bool together = uses[end - 1].prefix == uses[i].prefix;
    for (size_t at = i; at < end; ++at) {
      if (at > i && uses[at].prefix == uses[at - 1].prefix) continue;
      PrefixUse& prefix = space->prefixes[uses[at].prefix];
      (together ? prefix.space : prefix.shared) += bytes;
    }
    i = end;
  }
}

// Largest first; `uses` follow.
void SortPrefixes(std::vector<Use>& uses, ShelfSpace* space) {
  std::vector<int32_t> order(space->prefixes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
    const PrefixUse &left = space->prefixes[a], &right = space->prefixes[b];
    return left.space + left.shared > right.space + right.shared;
  });
  std::vector<PrefixUse> sorted;
  std::vector<int32_t> place(order.size());
  for (const int32_t old : order) {
    place[old] = static_cast<int32_t>(sorted.size());
    sorted.push_back(std::move(space->prefixes[old]));
  }
  space->prefixes = std::move(sorted);
  for (Use& use : uses) use.prefix = place[use.prefix];
}

}  // namespace

absl::StatusOr<ShelfSpace> CollectSpace(Store& store) {
  ShelfSpace space;
  space.info = store.info();
  TS_ASSIGN_OR_RETURN(std::vector<Use> uses, CollectUses(store, &space));
  TS_ASSIGN_OR_RETURN(space.map, store.MapSpace());
  Charge(uses, &space);
  SortPrefixes(uses, &space);
  for (const FileUse& file : space.map.files) {
    space.capacity += file.file.units() * kUnitBytes;
    space.live += file.live_units * kUnitBytes;
    space.free += file.free_units() * kUnitBytes;
    space.bad += file.bad_units * kUnitBytes;
  }
  space.owner_prefix.reserve(space.map.owned.size());
  for (const OwnedExtent& item : space.map.owned) {
    const auto use = std::ranges::lower_bound(uses, item.generation, {}, &Use::generation);
    const bool named = use != uses.end() && use->generation == item.generation;
    space.owner_prefix.push_back(named ? use->prefix : -1);
    if (!named) space.nameless += item.extent.bytes();
  }
  space.index_bytes = store.stats().index.file_bytes;
  return space;
}

}  // namespace tensorshelf::cli
