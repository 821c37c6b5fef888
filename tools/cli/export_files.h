// Writes exported files: streams objects out of a store with bounded memory, and publishes all files or none.

#ifndef TENSORSHELF_TOOLS_CLI_EXPORT_FILES_H_
#define TENSORSHELF_TOOLS_CLI_EXPORT_FILES_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/disk.h"
#include "store/store.h"
#include "tools/cli/output_file.h"

namespace tensorshelf::cli {

// Appends the bytes of `objects`, verified, one behind the other. `progress` is called with bytes done by this call.
absl::Status AppendObjects(Store& store, std::span<const Object* const> objects, OutputFile& output,
                           const std::function<void(uint64_t bytes_done)>& progress);

// Syncs all, renames all in order, syncs their directories. Before the first rename nothing has changed.
absl::Status PublishAll(Disk& disk, std::vector<OutputFile>& outputs);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_EXPORT_FILES_H_
