// Opening a shelf from the command line.

#ifndef TENSORSHELF_TOOLS_CLI_OPENING_H_
#define TENSORSHELF_TOOLS_CLI_OPENING_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/store.h"
#include "tools/cli/console.h"

namespace tensorshelf::cli {

// Read-only, beside a live writer too; missing devices are put up with, so that the rest can be looked at. Writes not
// one byte below the shelf. For names and records: with as little memory as it takes, for an open costs its faulting.
absl::StatusOr<std::unique_ptr<Store>> OpenForLooking(const std::string& path, Console& console);
// The same, for reading many tensors.
absl::StatusOr<std::unique_ptr<Store>> OpenForReading(const std::string& path, Console& console);
absl::StatusOr<std::unique_ptr<Store>> OpenForWriting(const std::string& path, Console& console);

// "at commit 17", "at commit 17, beside a live writer (pid 4711 ...)"
std::string StandingText(const StoreInfo& info);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_OPENING_H_
