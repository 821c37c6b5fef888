// Carries planned tensors from files into a store, with bounded memory.

#ifndef TENSORSHELF_TOOLS_CLI_IMPORT_COPY_H_
#define TENSORSHELF_TOOLS_CLI_IMPORT_COPY_H_

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "engine/disk.h"
#include "store/store.h"
#include "tools/cli/import_plan.h"

namespace tensorshelf::cli {

struct ImportCopyOptions {
  bool replace = false;         // false: AlreadyExists where a name is taken
  bool skip_unchanged = false;  // leave objects alone that have the same content
  // Two windows of this size are in memory; a larger tensor makes a window of its own size.
  uint64_t window_bytes = uint64_t{128} << 20;
  std::function<void(uint64_t bytes_done)> progress;
};

// Puts all tensors of `files` into `transaction`; the caller commits. Reads every byte once, while the window before is
// being written.
absl::Status CopyIntoTransaction(Disk& disk, Store& store, std::span<PlannedFile> files,
                                 const ImportCopyOptions& options, Transaction& transaction);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_IMPORT_COPY_H_
