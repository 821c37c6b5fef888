#include "tools/cli/json_output.h"

#include "absl/strings/str_cat.h"
#include "store/uuid.h"
#include "tools/cli/text.h"
#include "tools/safetensors/rules.h"

namespace tensorshelf::cli {

Json Envelope(const std::string& verb, const StoreInfo& info) {
  Json json = {{"schema_version", kSchemaVersion},
               {"verb", verb},
               {"shelf", info.path},
               {"store", UuidText(info.store_uuid)},
               {"commit", info.commit},
               {"mode", info.mode},
               {"writer", nullptr}};
  if (!info.writer.empty()) json["writer"] = info.writer;
  return json;
}

Json ErrorJson(const std::string& verb, const std::string& shelf, const absl::Status& status) {
  Json error = {{"code", absl::StatusCodeToString(status.code())},
                {"kind", KindJson(KindOf(status))},
                {"message", std::string(status.message())}};
  if (const std::optional<CorruptionInfo> info = CorruptionOf(status)) {
    error.update({{"name", info->name}, {"block", info->block}, {"file", info->file}, {"offset", info->offset}});
  }
  if (const std::string rule = safetensors::RuleOf(status); !rule.empty()) error["rule"] = rule;
  return {{"schema_version", kSchemaVersion}, {"verb", verb}, {"shelf", shelf}, {"error", std::move(error)}};
}

Json ObjectJson(const std::string& name, const ObjectRecord& record) {
  Json json = {{"name", name}, {"kind", record.kind == ObjectKind::kBytes ? "bytes" : "tensor"}};
  json["dtype"] = record.kind == ObjectKind::kBytes ? Json(nullptr) : Json(FormatDtype(record));
  json["shape"] = record.kind == ObjectKind::kBytes ? Json(nullptr) : Json(record.shape);
  json.update({{"size", record.logical_bytes},
               {"created", FormatTime(record.created_ns)},
               {"generation", record.generation},
               {"placement", PlacementText(record.placement)}});
  return json;
}

Json SpaceJson(const SpaceBytes& space) {
  return {{"capacity", space.capacity}, {"reserved", space.reserved}, {"live", space.live},   {"parked", space.parked},
          {"free", space.free},         {"scratch", space.scratch},   {"limbo", space.limbo}, {"bad", space.bad}};
}

Json KindJson(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kNone:
      return nullptr;
    case ErrorKind::kLocked:
      return "locked";
    case ErrorKind::kReadOnly:
      return "read_only";
    case ErrorKind::kClosed:
      return "closed";
    case ErrorKind::kForked:
      return "forked";
    case ErrorKind::kPrecondition:
      return "precondition";
    case ErrorKind::kDeviceMissing:
      return "device_missing";
    case ErrorKind::kLostCommits:
      return "lost_commits";
    case ErrorKind::kLatched:
      return "latched";
    case ErrorKind::kFull:
      return "full";
    case ErrorKind::kIndexFull:
      return "index_full";
    case ErrorKind::kCorruption:
      return "corruption";
    case ErrorKind::kChanged:
      return "changed";
    case ErrorKind::kStale:
      return "stale";
  }
  return nullptr;
}

const char* PlacementText(Placement placement) {
  switch (placement) {
    case Placement::kNone:
      return "none";
    case Placement::kExtents:
      return "extents";
    case Placement::kInline:
      return "inline";
    case Placement::kExternal:
      return "external";
  }
  return "unknown";
}

std::string Dump(const Json& json) {
  return json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}
std::string DumpLine(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace tensorshelf::cli
