#include "store/features.h"

#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/foundation/mutation.h"

namespace tensorshelf {
namespace {

// Bits reserved for later versions, so that this build can say what it is that it cannot do.
struct ReservedFeature {
  int bit;
  const char* name;
};
constexpr ReservedFeature kReservedIncompat[] = {{0, "compression"}, {1, "encryption"}};

std::string DescribeBit(int bit) {
  for (const ReservedFeature& feature : kReservedIncompat) {
    if (feature.bit == bit) return absl::StrCat("incompat feature ", bit, " (", feature.name, ")");
  }
  return absl::StrCat("incompat feature ", bit, " (no name in this version)");
}

}  // namespace

absl::StatusOr<FeatureAccess> CheckFeatures(const std::string& what, uint64_t ro_compat, uint64_t incompat) {
  std::vector<std::string> unknown;
  for (int bit = 0; bit < 64; ++bit) {
    if (((incompat & ~kIncompatKnown) >> bit & 1) != 0) unknown.push_back(DescribeBit(bit));
  }
  if (!unknown.empty() && !TS_MUTATE(ignore_unknown_features)) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, " needs a newer version of tensorshelf: ", absl::StrJoin(unknown, ", ")));
  }
  return (ro_compat & ~kRoCompatKnown) != 0 ? FeatureAccess::kReadOnly : FeatureAccess::kReadWrite;
}

}  // namespace tensorshelf
