// model.safetensors.index.json: which of several files holds which tensor.

#ifndef TENSORSHELF_TOOLS_SAFETENSORS_SHARD_INDEX_H_
#define TENSORSHELF_TOOLS_SAFETENSORS_SHARD_INDEX_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace tensorshelf::safetensors {

struct ShardIndex {
  std::map<std::string, std::string> weight_map;  // tensor name -> file name, a plain name in the index's own folder
};

// InvalidArgument: not JSON, no weight_map or one that is no map of strings, a name twice, a file name that leaves the
// folder. Everything else in the file (metadata.total_size is a hint) is skipped.
absl::StatusOr<ShardIndex> ParseShardIndex(const std::string& json);

// As the Hugging Face writers lay it out: indented by two, keys sorted, a line end at the end.
std::string FormatShardIndex(const ShardIndex& index, uint64_t total_bytes);

}  // namespace tensorshelf::safetensors

#endif  // TENSORSHELF_TOOLS_SAFETENSORS_SHARD_INDEX_H_
