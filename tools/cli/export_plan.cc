#include "tools/cli/export_plan.h"

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "engine/foundation/status_macros.h"
#include "store/dtype.h"
#include "store/name.h"
#include "tools/cli/import_plan.h"
#include "tools/cli/listing.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

absl::Status CannotHold(const std::string& name, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", EscapeForTerminal(name), "' cannot be in a safetensors file: ", why));
}

// A bytes object that import made of a tensor; its two marks were written by us, but may have been put by anybody.
absl::StatusOr<safetensors::TensorEntry> EntryOfBytes(const std::string& name, const ObjectRecord& record,
                                                      const Metadata& metadata) {
  const auto dtype = metadata.find(kDtypeKey), shape = metadata.find(kShapeKey);
  if (dtype == metadata.end() || shape == metadata.end()) return CannotHold(name, "it is bytes, not a tensor");
  safetensors::TensorEntry entry{name, safetensors::FindFileDtype(dtype->second), {}, 0, 0};
  if (entry.dtype == nullptr) return CannotHold(name, absl::StrCat("unknown ", kDtypeKey, " in its metadata"));
  const nlohmann::json numbers = nlohmann::json::parse(shape->second, nullptr, /*allow_exceptions=*/false);
  if (!numbers.is_array()) return CannotHold(name, absl::StrCat(kShapeKey, " in its metadata is no list"));
  for (const nlohmann::json& number : numbers) {
    if (!number.is_number_unsigned()) return CannotHold(name, absl::StrCat(kShapeKey, " in its metadata is no shape"));
    entry.shape.push_back(number.get<uint64_t>());
  }
  TS_ASSIGN_OR_RETURN(const uint64_t bytes, safetensors::TensorBytes(name, *entry.dtype, entry.shape));
  if (bytes != record.logical_bytes) {
    return CannotHold(name, absl::StrCat("its metadata say ", bytes, " bytes, it has ", record.logical_bytes));
  }
  return entry;
}

// A bytes object under the name of the file metadata, with their mark.
bool IsFileMetadata(const std::string& name_in_file, const ObjectRecord& record, const Metadata& metadata) {
  const auto mark = metadata.find(kMarkKey);
  return name_in_file == kFileMetadataName && record.kind == ObjectKind::kBytes && mark != metadata.end() &&
         mark->second == kFileMetadataMark;
}

absl::StatusOr<safetensors::FileMetadata> ReadFileMetadata(Store& store, const Object& object) {
  if (object.size_bytes() > safetensors::kHeaderBytesMax) return CannotHold(object.name(), "metadata over 100 MB");
  std::string json(object.size_bytes(), '\0');
  const ReadRequest request{&object, 0, std::as_writable_bytes(std::span(json))};
  TS_RETURN_IF_ERROR(store.Read({&request, 1}, {}));
  return safetensors::ParseFileMetadata(json);
}

std::vector<std::vector<const ExportedTensor*>> CutIntoShards(const ExportSource& source, uint64_t shard_bytes) {
  std::vector<std::vector<const ExportedTensor*>> shards(1);
  uint64_t bytes = 0;
  for (const ExportedTensor& tensor : source.tensors) {
    const uint64_t size = tensor.object.size_bytes();
    if (shard_bytes > 0 && !shards.back().empty() && bytes + size > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(&tensor);
    bytes += size;
  }
  return shards;
}

}  // namespace

absl::StatusOr<safetensors::TensorEntry> EntryOf(const std::string& name, const ObjectRecord& record,
                                                 const Metadata& metadata) {
  if (record.kind == ObjectKind::kBytes) return EntryOfBytes(name, record, metadata);
  const Dtype* dtype = FindDtype(record.dtype);
  if (dtype == nullptr || dtype->safetensors[0] == '\0') {
    return CannotHold(name, absl::StrCat("the format has no ", FormatDtype(record)));
  }
  safetensors::TensorEntry entry{name, safetensors::FindFileDtype(dtype->safetensors), record.shape, 0, 0};
  if (entry.dtype->bits == 4) {
    if (entry.shape.empty()) return CannotHold(name, "a scalar of two 4-bit values has no shape there");
    if (entry.shape.back() > ~uint64_t{0} / 2) return CannotHold(name, "its last dimension doubled is over 64 bits");
    entry.shape.back() *= 2;
  }
  return entry;
}

absl::StatusOr<ExportSource> CollectExport(Store& store, const ExportSourceOptions& options) {
  ExportSource source;
  std::vector<Object> found;
  TS_RETURN_IF_ERROR(VisitObjects(store, {options.prefix, ""}, [&](const Object& object) -> absl::StatusOr<bool> {
    const std::string name_in_file = options.keep_prefix ? object.name() : object.name().substr(options.prefix.size());
    TS_ASSIGN_OR_RETURN(const Metadata metadata, object.metadata());
    if (IsFileMetadata(object.name().substr(options.prefix.size()), object.record(), metadata)) {
      TS_ASSIGN_OR_RETURN(source.metadata.emplace(), ReadFileMetadata(store, object));
      return true;
    }
    absl::StatusOr<safetensors::TensorEntry> entry = EntryOf(name_in_file, object.record(), metadata);
    if (!entry.ok()) {
      if (!options.skip_unsupported) {
        return absl::Status(entry.status().code(),
                            absl::StrCat(entry.status().message(), "; --skip-unsupported leaves it out"));
      }
      source.skipped.push_back(object.name());
      return true;
    }
    // The visit's object ends with the visit; this lease lasts as long as the export.
    TS_ASSIGN_OR_RETURN(Object kept, store.Find(object.name()));
    if (kept.record().generation != object.record().generation) {
      return absl::AbortedError(
          absl::StrCat("'", EscapeForTerminal(object.name()), "' changed while it was looked up"));
    }
    source.tensors.push_back({std::move(kept), *std::move(entry)});
    return true;
  }));
  if (source.tensors.empty() && source.skipped.empty() && !source.metadata) {
    return absl::NotFoundError(absl::StrCat("nothing under '", EscapeForTerminal(options.prefix), "'"));
  }
  return source;
}

absl::StatusOr<std::vector<PlannedExport>> PlanExport(const ExportSource& source, const std::string& file_name,
                                                      uint64_t shard_bytes) {
  const auto shards = CutIntoShards(source, shard_bytes);
  const std::string stem(absl::StripSuffix(file_name, ".safetensors"));
  std::vector<PlannedExport> files;
  for (size_t i = 0; i < shards.size(); ++i) {
    PlannedExport& file = files.emplace_back();
    file.file_name =
        shards.size() == 1 ? file_name : absl::StrFormat("%s-%05d-of-%05d.safetensors", stem, i + 1, shards.size());
    std::vector<safetensors::TensorEntry> entries;
    std::unordered_map<std::string, const Object*> objects;
    for (const ExportedTensor* tensor : shards[i]) {
      entries.push_back(tensor->entry);
      objects[tensor->entry.name] = &tensor->object;
    }
    TS_ASSIGN_OR_RETURN(file.header, safetensors::LayOutHeader(entries, source.metadata));
    for (const safetensors::TensorEntry& entry : entries) file.tensors.push_back(objects.at(entry.name));
    file.data_bytes = entries.empty() ? 0 : entries.back().end;
  }
  return files;
}

}  // namespace tensorshelf::cli
