// tensorshelf stat: everything that the shelf knows of one object.

#include "engine/foundation/status_macros.h"
#include "store/store.h"
#include "tools/cli/opening.h"
#include "tools/cli/report.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct StatArguments : CommonOptions {
  std::string name;
  bool names = false;
  bool sums = false;
};

absl::StatusOr<ExitStatus> RunStat(const StatArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  TS_ASSIGN_OR_RETURN(const Object object, store->Find(arguments.name));
  StatReport report;
  report.info = store->info();
  report.name = arguments.name;
  report.record = object.record();
  TS_ASSIGN_OR_RETURN(report.metadata, object.metadata());
  report.extents = PlaceExtents(report.info, report.record);
  report.trailer = PlaceTrailer(report.info, report.record);
  if (arguments.sums) {
    TS_ASSIGN_OR_RETURN(report.sums.emplace(), store->ReadSums(object));
  }
  if (arguments.names) {
    std::vector<std::string>& names = report.shared_by.emplace();
    TS_RETURN_IF_ERROR(store->Scan("", "", [&](const std::string& name, uint64_t generation) {
      if (generation == report.record.generation) names.push_back(name);
      return true;
    }));
  }
  console.out << (arguments.json ? Dump(StatJson(report)) : RenderStat(report, console));
  return ExitStatus::kClean;
}

}  // namespace

Verb AddStat(CLI::App& app) {
  auto arguments = std::make_shared<StatArguments>();
  CommandLine line(app, "stat", "Show all that is recorded of one object: type, place, sums, metadata.",
                   arguments.get());
  line.RequiredText("NAME", &arguments->name, "the whole name");
  line.Flag("--names", &arguments->names, "also the other names of the same object (reads all names)");
  line.Flag("--sums", &arguments->sums, "also every block's sum");
  return {line.command(), arguments, [arguments](Console& console) { return RunStat(*arguments, console); }};
}

}  // namespace tensorshelf::cli
