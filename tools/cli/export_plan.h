// Which files an export makes, and what each holds.

#ifndef TENSORSHELF_TOOLS_CLI_EXPORT_PLAN_H_
#define TENSORSHELF_TOOLS_CLI_EXPORT_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "store/store.h"
#include "tools/safetensors/header.h"

namespace tensorshelf::cli {

struct ExportedTensor {
  Object object;
  safetensors::TensorEntry entry;  // name and type in the file
};

// What a name prefix holds, as safetensors.
struct ExportSource {
  std::vector<ExportedTensor> tensors;  // by name
  std::optional<safetensors::FileMetadata> metadata;
  std::vector<std::string> skipped;  // names of what the format cannot hold
};

struct ExportSourceOptions {
  std::string prefix;
  bool keep_prefix = false;       // in the names in the file
  bool skip_unsupported = false;  // else they are an error that names the object
};

// NotFound when there is nothing under the prefix. InvalidArgument: an object that the format cannot hold.
absl::StatusOr<ExportSource> CollectExport(Store& store, const ExportSourceOptions& options);

// The type of a record in a file's terms; InvalidArgument when there is none. `metadata` is the object's.
absl::StatusOr<safetensors::TensorEntry> EntryOf(const std::string& name, const ObjectRecord& record,
                                                 const Metadata& metadata);

// One file to write: header bytes, then the tensors' bytes in the order of `tensors`.
struct PlannedExport {
  std::string file_name;
  std::string header;
  std::vector<const Object*> tensors;  // in the source
  uint64_t data_bytes = 0;
};

// Cut after names in order so that no file's data is over `shard_bytes` (0: one file), but for single larger tensors.
// `file_name` "model.safetensors" becomes "model-00001-of-00003.safetensors" when there is more than one.
absl::StatusOr<std::vector<PlannedExport>> PlanExport(const ExportSource& source, const std::string& file_name,
                                                      uint64_t shard_bytes);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_EXPORT_PLAN_H_
