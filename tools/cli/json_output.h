// What --json prints: the parts that verbs share. The schema is described in tools/cli/JSON.md.

#ifndef TENSORSHELF_TOOLS_CLI_JSON_OUTPUT_H_
#define TENSORSHELF_TOOLS_CLI_JSON_OUTPUT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "store/store.h"

namespace tensorshelf::cli {

using Json = nlohmann::ordered_json;

inline constexpr int kSchemaVersion = 1;

// {"schema_version", "verb", "shelf", "store", "commit", "mode", "writer"}: what the answer is about and which commit
// it is true for.
Json Envelope(const std::string& verb, const StoreInfo& info);
// {"schema_version", "verb", "shelf", "error": {"code", "kind", "message", ...}}
Json ErrorJson(const std::string& verb, const std::string& shelf, const absl::Status& status);
// {"name", "kind", "dtype", "shape", "size", "created", "generation", "placement"}
Json ObjectJson(const std::string& name, const ObjectRecord& record);
Json SpaceJson(const SpaceBytes& space);

// "locked", "corruption", ...; null for kNone.
Json KindJson(ErrorKind kind);
const char* PlacementText(Placement placement);

// Indented, with a line end. Bytes that are not UTF-8 (in paths) become U+FFFD.
std::string Dump(const Json& json);
// The same on one line, without a line end.
std::string DumpLine(const Json& json);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_JSON_OUTPUT_H_
