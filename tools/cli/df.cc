// tensorshelf df: how full the shelf is, and with what.

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/shelf_space.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct DfArguments : CommonOptions {
  uint64_t limit = 20;
};

const char* FragmentationWord(double score) {
  return score < 0.4 ? "none" : score < 0.7 ? "acceptable" : score < 0.9 ? "notable" : "severe";
}

const FileInfo* FindFile(const StoreInfo& info, uint32_t file_id) {
  for (const FileInfo& file : info.files) {
    if (file.file_id == file_id) return &file;
  }
  return nullptr;
}

// What of several files lies together.
struct Sum {
  uint64_t capacity = 0, live = 0, free = 0, bad = 0;
  void Add(const FileUse& file) {
    capacity += file.file.units() * kUnitBytes;
    live += file.live_units * kUnitBytes;
    free += file.free_units() * kUnitBytes;
    bad += file.bad_units * kUnitBytes;
  }
};

std::map<std::string, Sum> ByTier(const ShelfSpace& space) {
  std::map<std::string, Sum> tiers;
  for (const FileUse& file : space.map.files) {
    const FileInfo* info = FindFile(space.info, file.file.file_id);
    tiers[info == nullptr ? "" : info->tier].Add(file);
  }
  return tiers;
}

std::string Row(const std::string& what, const Sum& sum) {
  const double share =
      sum.capacity == 0 ? 0 : 100.0 * static_cast<double>(sum.live) / static_cast<double>(sum.capacity);
  return absl::StrFormat("%-14s %11s %11s %5.1f%% %11s %9s", what, FormatBytes(sum.capacity), FormatBytes(sum.live),
                         share, FormatBytes(sum.free), sum.bad == 0 ? "-" : FormatBytes(sum.bad));
}

std::string RenderDf(const ShelfSpace& space, const DfArguments& arguments, const Console& console) {
  std::string text = Painted(console, Colour::kBold,
                             absl::StrFormat("%-14s %11s %11s %6s %11s %9s  %s", "", "capacity", "live", "", "free",
                                             "bad", "largest run, fragmentation")) +
                     "\n";
  for (const FileUse& file : space.map.files) {
    Sum sum;
    sum.Add(file);
    const FileInfo* info = FindFile(space.info, file.file.file_id);
    absl::StrAppend(&text, Row(absl::StrCat("file ", file.file.file_id), sum), "  ",
                    FormatBytes(file.largest_free_units() * kUnitBytes),
                    absl::StrFormat(", %.2f (%s)", file.fragmentation, FragmentationWord(file.fragmentation)),
                    info != nullptr && info->path.empty() ? Painted(console, Colour::kRed, "  MISSING") : "", "\n");
  }
  for (const auto& [tier, sum] : ByTier(space)) {
    absl::StrAppend(&text, Row(absl::StrCat("tier ", EscapeForTerminal(tier)), sum), "\n");
  }
  absl::StrAppend(&text, Row("shelf", {space.capacity, space.live, space.free, space.bad}), "\n\n", "shared        ",
                  FormatBytes(space.shared), " of live: objects with more than one name\nnameless      ",
                  FormatBytes(space.nameless), " of live: objects without a name\nindex         ",
                  FormatBytes(space.index_bytes), " of files\n");
  if (space.info.mode == "beside-writer") {
    text += "              of free, the writer may have reserved or parked some: it alone knows\n";
  }
  absl::StrAppend(&text, "\n",
                  Painted(console, Colour::kBold,
                          absl::StrFormat("%11s %11s %11s %10s  %s", "space", "shared", "size", "names", "prefix")),
                  "\n");
  uint64_t shown = 0;
  for (const PrefixUse& prefix : space.prefixes) {
    if (arguments.limit > 0 && shown++ == arguments.limit) {
      absl::StrAppend(&text, "and ", space.prefixes.size() - arguments.limit, " more (--limit 0 shows all)\n");
      break;
    }
    absl::StrAppend(&text,
                    absl::StrFormat("%11s %11s %11s %10d  ", FormatBytes(prefix.space), FormatBytes(prefix.shared),
                                    FormatBytes(prefix.size), prefix.names),
                    prefix.label.empty() ? "(no / or . in the name)" : EscapeForTerminal(prefix.label), "\n");
  }
  return absl::StrCat(text, FormatCount(space.names, "name"), ", ", StandingText(space.info), "\n");
}

Json SumJson(const Sum& sum) {
  return {{"capacity", sum.capacity}, {"live", sum.live}, {"free", sum.free}, {"bad", sum.bad}};
}

Json DfJson(const ShelfSpace& space, const DfArguments& arguments) {
  Json json = Envelope("df", space.info);
  json.update(SumJson({space.capacity, space.live, space.free, space.bad}));
  // The writer's memory alone knows the other states; without one nothing is in them.
  const Json other = space.info.mode == "beside-writer" ? Json(nullptr) : Json(0);
  for (const char* state : {"reserved", "parked", "scratch", "limbo"}) json[state] = other;
  json.update({{"shared", space.shared}, {"nameless", space.nameless}, {"index_size", space.index_bytes}});
  json["names"] = space.names;
  Json tiers = Json::array();
  for (const auto& [tier, sum] : ByTier(space)) {
    Json one = {{"tier", tier}};
    one.update(SumJson(sum));
    tiers.push_back(std::move(one));
  }
  json["tiers"] = std::move(tiers);
  Json files = Json::array();
  for (const FileUse& file : space.map.files) {
    Sum sum;
    sum.Add(file);
    const FileInfo* info = FindFile(space.info, file.file.file_id);
    Json one = {{"file_id", file.file.file_id}};
    one["path"] = info == nullptr || info->path.empty() ? Json(nullptr) : Json(info->path);
    one["tier"] = info == nullptr ? "" : info->tier;
    one.update(SumJson(sum));
    one.update({{"free_runs", file.free.size()},
                {"largest_free", file.largest_free_units() * kUnitBytes},
                {"fragmentation", file.fragmentation}});
    files.push_back(std::move(one));
  }
  json["files"] = std::move(files);
  Json prefixes = Json::array();
  for (const PrefixUse& prefix : space.prefixes) {
    if (arguments.limit > 0 && prefixes.size() == arguments.limit) break;
    prefixes.push_back({{"prefix", prefix.label},
                        {"names", prefix.names},
                        {"size", prefix.size},
                        {"space", prefix.space},
                        {"shared", prefix.shared}});
  }
  json["prefix_count"] = space.prefixes.size();
  json["prefixes"] = std::move(prefixes);
  json["problem_count"] = space.map.problems.size() + space.damaged_names;
  return json;
}

absl::StatusOr<ExitStatus> RunDf(const DfArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  TS_ASSIGN_OR_RETURN(const ShelfSpace space, CollectSpace(*store));
  console.out << (arguments.json ? Dump(DfJson(space, arguments)) : RenderDf(space, arguments, console));
  const uint64_t problems = space.map.problems.size() + space.damaged_names;
  if (problems == 0) return ExitStatus::kClean;
  console.err << "tensorshelf df: " << FormatCount(problems, "record")
              << " cannot be counted rightly; fsck says which\n";
  return ExitStatus::kDamage;
}

}  // namespace

Verb AddDf(CLI::App& app) {
  auto arguments = std::make_shared<DfArguments>();
  CommandLine line(app, "df",
                   "Show how full the shelf is: by file, by tier and by the first part of names, with a fragmentation "
                   "score from 0 (none) to 1 (severe). Reads all names and records.",
                   arguments.get());
  line.Number("--limit", &arguments->limit, "at most so many prefixes, largest first; 0 for all", 0, ~uint64_t{0});
  return {line.command(), arguments, [arguments](Console& console) { return RunDf(*arguments, console); }};
}

}  // namespace tensorshelf::cli
