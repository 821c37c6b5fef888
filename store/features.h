// The three feature words of a label and of the super row, with ext4's rule: what this build does not know and is
// `compat` is kept, `ro_compat` makes the store read-only, `incompat` refuses it.

#ifndef TENSORSHELF_STORE_FEATURES_H_
#define TENSORSHELF_STORE_FEATURES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tensorshelf {

// Version 1 sets no feature. A bit gets its name here before the first store with it is written.
inline constexpr uint64_t kCompatKnown = 0;
inline constexpr uint64_t kRoCompatKnown = 0;
inline constexpr uint64_t kIncompatKnown = 0;

enum class FeatureAccess { kReadWrite, kReadOnly };

// FailedPrecondition for an unknown `incompat` bit, naming each by number and, where it has been reserved, by name.
// `what` says whose words they are.
absl::StatusOr<FeatureAccess> CheckFeatures(const std::string& what, uint64_t ro_compat, uint64_t incompat);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_FEATURES_H_
