#include "store/space_scan.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"

namespace tensorshelf {
namespace {

struct NameScan {
  absl::Status status;
  std::vector<uint64_t> generations;  // of objects with a row in `objects`, one entry a name
  std::vector<uint64_t> inline_generations;
};

struct ObjectScan {
  absl::Status status;
  std::vector<OwnedExtent> owned;
  std::vector<uint64_t> generations;  // rising
};

NameScan ScanAllNames(Index& index) {
  NameScan scan;
  scan.status = index.ScanNames("", "", [&](const std::string&, const NameRow& row) {
    ((row.flags & NameRow::kInline) != 0 ? scan.inline_generations : scan.generations).push_back(row.generation);
    return true;
  });
  std::sort(scan.generations.begin(), scan.generations.end());
  std::sort(scan.inline_generations.begin(), scan.inline_generations.end());
  return scan;
}

ObjectScan ScanAllObjects(Index& index) {
  ObjectScan scan;
  const absl::Status read = index.ScanObjects(0, UINT64_MAX, [&](uint64_t generation, std::span<const std::byte> row) {
    auto space = DecodeRecordSpace(row);
    if (!space.ok() && TS_MUTATE(undecodable_is_free)) {
      scan.generations.push_back(generation);
      return true;
    }
    if (!space.ok() || space->generation != generation) {
      scan.status = absl::DataLossError(
          absl::StrCat("object row of generation ", generation, ": ",
                       space.ok() ? "it says another generation" : std::string(space.status().message())));
      return false;
    }
    scan.generations.push_back(generation);
    for (const Extent& extent : space->extents) scan.owned.push_back({generation, extent});
    return true;
  });
  if (scan.status.ok()) scan.status = read;
  return scan;
}

// Adds generations with two names or more to `shared`; returns how many different ones there are.
uint64_t CountShared(const std::vector<uint64_t>& sorted, SharedNames& shared) {
  uint64_t distinct = 0;
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i;
    while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
    if (end - i >= 2) shared[sorted[i]] = end - i;
    ++distinct;
    i = end;
  }
  return distinct;
}

}  // namespace

absl::StatusOr<SpaceScan> ScanSpace(Index& index, std::span<const SpaceFile> files) {
  NameScan names;
  std::thread name_thread([&] { names = ScanAllNames(index); });
  ObjectScan objects = ScanAllObjects(index);
  name_thread.join();
  TS_RETURN_IF_ERROR(names.status);
  TS_RETURN_IF_ERROR(objects.status);
  SpaceScan scan;
  TS_ASSIGN_OR_RETURN(scan.allocator, ExtentAllocator::Rebuild(files, std::move(objects.owned)));
  scan.counts.names = names.generations.size() + names.inline_generations.size();
  CountShared(names.generations, scan.counts.shared);
  scan.counts.objects = objects.generations.size() + CountShared(names.inline_generations, scan.counts.shared);
  std::set_difference(objects.generations.begin(), objects.generations.end(), names.generations.begin(),
                      names.generations.end(), std::back_inserter(scan.orphans));
  std::vector<uint64_t> dangling;
  names.generations.erase(std::unique(names.generations.begin(), names.generations.end()), names.generations.end());
  std::set_difference(names.generations.begin(), names.generations.end(), objects.generations.begin(),
                      objects.generations.end(), std::back_inserter(dangling));
  if (!dangling.empty()) {
    return absl::DataLossError(absl::StrCat(dangling.size(),
                                            " names point to objects that are not in the index, the first ",
                                            "to generation ", dangling.front()));
  }
  return scan;
}

}  // namespace tensorshelf
