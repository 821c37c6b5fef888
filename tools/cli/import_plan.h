// Which tensors an import will store, read from the headers of its files. Files are hostile until proven whole: nothing
// is stored and no tensor's memory allocated before every header of the import has been checked.

#ifndef TENSORSHELF_TOOLS_CLI_IMPORT_PLAN_H_
#define TENSORSHELF_TOOLS_CLI_IMPORT_PLAN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "store/store.h"

namespace tensorshelf::cli {

// How a safetensors file's own things are kept in a shelf, so that export gives them back:
// - the file's metadata map: a bytes object <prefix>__metadata__ (no tensor of such a file can have that name) with the
//   map's JSON text as its bytes, marked by object metadata {"safetensors": "file-metadata"};
// - a tensor that no dtype and shape of the store describe (6-bit floats, an odd last dimension of 4-bit ones, more
// than 64
//   dimensions): a bytes object with object metadata "safetensors.dtype" and "safetensors.shape", the shape as JSON.
inline constexpr char kFileMetadataName[] = "__metadata__";
inline constexpr char kMarkKey[] = "safetensors";
inline constexpr char kFileMetadataMark[] = "file-metadata";
inline constexpr char kDtypeKey[] = "safetensors.dtype";
inline constexpr char kShapeKey[] = "safetensors.shape";

struct PlannedTensor {
  std::string name;  // in the store
  ObjectKind kind = ObjectKind::kTensor;
  uint16_t dtype = 0;
  std::vector<uint64_t> shape;
  Metadata metadata;
  uint64_t offset = 0, length = 0;  // in the file, bytes
};

struct PlannedFile {
  std::string path;
  std::unique_ptr<File> file;
  std::vector<PlannedTensor> tensors;  // by offset
};

struct ImportPlan {
  std::vector<PlannedFile> files;
  std::vector<PutItem> extra_items;  // the file metadata; `bytes` lie in extra_bytes
  std::vector<std::unique_ptr<std::string>> extra_bytes;
  std::vector<std::string> notes;  // for the user: tensors not in the index, metadata that disagrees
  uint64_t tensor_count = 0;
  uint64_t bytes = 0;
};

struct ImportNames {
  std::string prefix;
  std::map<std::string, std::string> renames;  // name in the file -> name in the store, before the prefix
  bool drop_file_metadata = false;
};

// `paths`: .safetensors, .npy (named by its file), or a *.json index of shards beside it. InvalidArgument: a broken
// rule, a name that the store cannot keep, or two tensors under one name.
absl::StatusOr<ImportPlan> PlanImport(Disk& disk, const std::vector<std::string>& paths, const ImportNames& names);

// {"name in the file": "name in the store"}; InvalidArgument when it is anything else.
absl::StatusOr<std::map<std::string, std::string>> ReadRenames(Disk& disk, const std::string& path);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_IMPORT_PLAN_H_
