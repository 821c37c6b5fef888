// What info, stat and verify say, as pure functions of what the store told them.

#ifndef TENSORSHELF_TOOLS_CLI_REPORT_H_
#define TENSORSHELF_TOOLS_CLI_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/store.h"
#include "store/verify.h"
#include "tools/cli/console.h"
#include "tools/cli/json_output.h"

namespace tensorshelf::cli {

struct InfoReport {
  StoreInfo info;
  std::vector<std::string> file_systems;                   // of each file, "ext4"; empty: unknown
  std::optional<uint64_t> names;                           // when counted
  std::optional<uint64_t> page_lock_limit = std::nullopt;  // bytes; absent: none
};
std::string RenderInfo(const InfoReport& report, const Console& console);
Json InfoJson(const InfoReport& report);

// A part of an object in a data file.
struct PlacedExtent {
  std::string file;  // path; empty: missing
  uint32_t file_id = 0;
  uint32_t column = 0;
  uint64_t offset = 0;  // in the file, bytes
  uint64_t length = 0;  // bytes, whole units
};
struct StatReport {
  StoreInfo info;
  std::string name;
  ObjectRecord record;
  Metadata metadata;
  std::vector<PlacedExtent> extents;
  std::optional<PlacedExtent> trailer;
  std::optional<std::vector<std::string>> shared_by;  // names of the same object, this one too; when asked for
  std::optional<std::vector<uint64_t>> sums;          // when asked for
};
// Where the parts of `record` lie, by the files of `info`.
std::vector<PlacedExtent> PlaceExtents(const StoreInfo& info, const ObjectRecord& record);
std::optional<PlacedExtent> PlaceTrailer(const StoreInfo& info, const ObjectRecord& record);
std::string RenderStat(const StatReport& report, const Console& console);
Json StatJson(const StatReport& report);

std::string RenderDamage(const VerifyDamage& damage, const Console& console);
Json DamageJson(const VerifyDamage& damage);
std::string RenderVerify(const VerifyReport& report, const StoreInfo& info, double seconds, const Console& console);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_REPORT_H_
