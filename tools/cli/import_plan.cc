#include "tools/cli/import_plan.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/dtype.h"
#include "store/name.h"
#include "tools/npy/npy_header.h"
#include "tools/safetensors/header.h"
#include "tools/safetensors/shard_index.h"

namespace tensorshelf::cli {
namespace {

constexpr uint64_t kIndexBytesMax = safetensors::kHeaderBytesMax;

std::string Quoted(const std::string& text) { return absl::StrCat("'", EscapeForTerminal(text), "'"); }

// Follows links: downloaded models are often links into a cache.
absl::StatusOr<std::string> ResolvePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::canonical(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(Quoted(path), ": ", error.message()));
  return resolved.string();
}

absl::StatusOr<std::string> ReadText(Disk& disk, const std::string& path) {
  TS_ASSIGN_OR_RETURN(const std::string resolved, ResolvePath(path));
  return ReadFile(disk, resolved, kIndexBytesMax);
}

// Type and shape of the store for those of the file; a bytes object where there are none.
void SetType(const safetensors::TensorEntry& entry, PlannedTensor* planned) {
  planned->shape = entry.shape;
  const Dtype* dtype = FindDtypeBySafetensors(entry.dtype->name);
  bool fits = dtype != nullptr;
  if (fits && entry.dtype->bits == 4) {
    // The file's shape counts values, ours bytes of two values.
    fits = !planned->shape.empty() && planned->shape.back() % 2 == 0;
    if (fits) planned->shape.back() /= 2;
  }
  if (fits) {
    const absl::StatusOr<uint64_t> bytes = BytesOfShape(dtype->number, planned->shape);
    fits = bytes.ok() && *bytes == entry.bytes();
  }
  if (fits) {
    planned->dtype = dtype->number;
    return;
  }
  std::string shape = "[";
  for (size_t i = 0; i < entry.shape.size(); ++i) absl::StrAppend(&shape, i == 0 ? "" : ",", entry.shape[i]);
  planned->kind = ObjectKind::kBytes;
  planned->shape.clear();
  planned->metadata = {{kDtypeKey, entry.dtype->name}, {kShapeKey, shape + "]"}};
}

class Planner {
 public:
  Planner(Disk& disk, const ImportNames& names) : disk_(disk), names_(names) {}

  absl::Status AddPath(const std::string& path) {
    if (absl::EndsWith(path, ".json")) return AddShards(path);
    TS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, Open(path));
    std::string magic(6, '\0');
    TS_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
    magic.resize(std::min<uint64_t>(size, magic.size()));
    TS_RETURN_IF_ERROR(ReadExactly(*file, 0, std::as_writable_bytes(std::span(magic))));
    if (magic == "\x93NUMPY") return AddNpy(path, std::move(file));
    return AddSafetensors(path, std::move(file), nullptr);
  }

  absl::StatusOr<ImportPlan> Finish() {
    TS_RETURN_IF_ERROR(AddFileMetadata());
    return std::move(plan_);
  }

 private:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path) {
    TS_ASSIGN_OR_RETURN(const std::string resolved, ResolvePath(path));
    return disk_.Open(resolved, {});
  }

  absl::Status AddShards(const std::string& path) {
    TS_ASSIGN_OR_RETURN(const std::string text, ReadText(disk_, path));
    const absl::StatusOr<safetensors::ShardIndex> index = safetensors::ParseShardIndex(text);
    if (!index.ok()) return Annotate(index.status(), EscapeForTerminal(path));
    std::map<std::string, std::set<std::string>> listed;  // file -> its tensors
    for (const auto& [name, file] : index->weight_map) listed[file].insert(name);
    for (const auto& [file_name, tensors] : listed) {
      const std::string shard = (std::filesystem::path(path).parent_path() / file_name).string();
      TS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, Open(shard));
      TS_RETURN_IF_ERROR(AddSafetensors(shard, std::move(file), &tensors));
    }
    return absl::OkStatus();
  }

  // `listed`: what an index says is in the file; null without one.
  absl::Status AddSafetensors(const std::string& path, std::unique_ptr<File> file,
                              const std::set<std::string>* listed) {
    TS_ASSIGN_OR_RETURN(safetensors::Header header, safetensors::ReadHeader(*file));
    PlannedFile planned{path, std::move(file), {}};
    size_t found = 0;
    for (const safetensors::TensorEntry& entry : header.tensors) {
      if (listed != nullptr && !listed->contains(entry.name)) {
        plan_.notes.push_back(
            absl::StrCat("tensor ", Quoted(entry.name), " of ", Quoted(path), " is not in the index and is left out"));
        continue;
      }
      ++found;
      PlannedTensor tensor;
      tensor.offset = header.data_offset + entry.begin;
      tensor.length = entry.bytes();
      SetType(entry, &tensor);
      TS_RETURN_IF_ERROR(SetName(entry.name, path, &tensor));
      planned.tensors.push_back(std::move(tensor));
    }
    if (listed != nullptr && found < listed->size()) return Missing(header, path, *listed);
    if (header.metadata.has_value()) TS_RETURN_IF_ERROR(MergeMetadata(*header.metadata, path));
    plan_.files.push_back(std::move(planned));
    return absl::OkStatus();
  }

  absl::Status AddNpy(const std::string& path, std::unique_ptr<File> file) {
    TS_ASSIGN_OR_RETURN(const npy::NpyHeader header, npy::ReadNpyHeader(*file));
    PlannedFile planned{path, std::move(file), {}};
    PlannedTensor& tensor = planned.tensors.emplace_back();
    tensor.dtype = header.dtype;
    tensor.shape = header.shape;
    tensor.offset = header.data_offset;
    tensor.length = header.data_bytes;
    TS_RETURN_IF_ERROR(SetName(std::filesystem::path(path).stem().string(), path, &tensor));
    plan_.files.push_back(std::move(planned));
    return absl::OkStatus();
  }

  static absl::Status Missing(const safetensors::Header& header, const std::string& path,
                              const std::set<std::string>& listed) {
    std::set<std::string> left = listed;
    for (const safetensors::TensorEntry& entry : header.tensors) left.erase(entry.name);
    return absl::InvalidArgumentError(
        absl::StrCat("the index says that tensor ", Quoted(*left.begin()), " is in ", Quoted(path), ", it is not"));
  }

  absl::Status SetName(const std::string& name_in_file, const std::string& path, PlannedTensor* tensor) {
    const auto renamed = names_.renames.find(name_in_file);
    tensor->name = names_.prefix + (renamed == names_.renames.end() ? name_in_file : renamed->second);
    const absl::Status valid = ValidateName(tensor->name);
    if (!valid.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name_in_file), " of ", Quoted(path),
                                                     " cannot be stored under this name (", valid.message(),
                                                     "); --prefix or --rename-map give it another"));
    }
    const auto [other, inserted] = sources_.try_emplace(tensor->name, path);
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat("two tensors would be named ", Quoted(tensor->name), ": one of ",
                                                     Quoted(other->second), " and one of ", Quoted(path)));
    }
    ++plan_.tensor_count;
    plan_.bytes += tensor->length;
    return absl::OkStatus();
  }

  // The maps of several files become one; where they disagree the first file's value stays.
  absl::Status MergeMetadata(const safetensors::FileMetadata& metadata, const std::string& path) {
    if (!metadata_.has_value()) metadata_.emplace();
    for (const auto& [key, value] : metadata) {
      const auto [known, inserted] = metadata_values_.try_emplace(key, value);
      if (inserted) {
        metadata_->emplace_back(key, value);
      } else if (known->second != value) {
        plan_.notes.push_back(absl::StrCat("metadata ", Quoted(key), " of ", Quoted(path),
                                           " differs from that of an earlier file, which is kept"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddFileMetadata() {
    if (!metadata_.has_value() || names_.drop_file_metadata) return absl::OkStatus();
    const std::string name = names_.prefix + kFileMetadataName;
    if (const auto other = sources_.find(name); other != sources_.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the files' metadata would be named ", Quoted(name),
                                                     " as a tensor of ", Quoted(other->second),
                                                     "; --drop-file-metadata leaves it out"));
    }
    TS_RETURN_IF_ERROR(ValidateName(name));
    plan_.extra_bytes.push_back(std::make_unique<std::string>(safetensors::FormatFileMetadata(*metadata_)));
    PutItem item;
    item.name = name;
    item.kind = ObjectKind::kBytes;
    item.bytes = std::as_bytes(std::span(*plan_.extra_bytes.back()));
    item.metadata = {{kMarkKey, kFileMetadataMark}};
    plan_.extra_items.push_back(std::move(item));
    return absl::OkStatus();
  }

  Disk& disk_;
  const ImportNames& names_;
  ImportPlan plan_;
  std::unordered_map<std::string, std::string> sources_;  // name in the store -> path
  std::optional<safetensors::FileMetadata> metadata_;
  std::unordered_map<std::string, std::string> metadata_values_;
};

}  // namespace

absl::StatusOr<ImportPlan> PlanImport(Disk& disk, const std::vector<std::string>& paths, const ImportNames& names) {
  Planner planner(disk, names);
  for (const std::string& path : paths) TS_RETURN_IF_ERROR(planner.AddPath(path));
  return planner.Finish();
}

absl::StatusOr<std::map<std::string, std::string>> ReadRenames(Disk& disk, const std::string& path) {
  TS_ASSIGN_OR_RETURN(const std::string text, ReadText(disk, path));
  const absl::StatusOr<safetensors::FileMetadata> pairs = safetensors::ParseFileMetadata(text);
  if (!pairs.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(path), " is not a JSON map of names: ", pairs.status().message()));
  }
  return std::map<std::string, std::string>(pairs->begin(), pairs->end());
}

}  // namespace tensorshelf::cli
