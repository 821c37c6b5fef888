// tensorshelf grow: more capacity, on the devices that the shelf has or on new ones.

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/grow_store.h"
#include "store/name.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct GrowArguments : CommonOptions {
  std::string capacity;
  std::vector<std::string> devices;
};

absl::StatusOr<ExitStatus> RunGrow(const GrowArguments& arguments, Console& console) {
  GrowOptions options;
  TS_ASSIGN_OR_RETURN(options.capacity, ParseBytes(arguments.capacity));
  options.devices = arguments.devices;
  TS_ASSIGN_OR_RETURN(const GrowReport report, GrowStore(arguments.shelf, options));
  if (arguments.json) {
    TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
    Json json = Envelope("grow", store->info());
    json["added"] = report.capacity;
    json["files"] = report.files;
    console.out << Dump(json);
    return ExitStatus::kClean;
  }
  for (const std::string& file : report.files) console.out << EscapeForTerminal(file) << "\n";
  console.out << "added " << FormatBytes(report.capacity) << " in " << FormatCount(report.files.size(), "data file")
              << ", in commit " << report.commit << "\n";
  return ExitStatus::kClean;
}

}  // namespace

Verb AddGrow(CLI::App& app) {
  auto arguments = std::make_shared<GrowArguments>();
  CommandLine line(app, "grow",
                   "Add capacity to a shelf that nobody has open: a new data file on each of its devices, or where "
                   "--device says. All of it is there afterwards, or nothing.",
                   arguments.get());
  line.RequiredText("--capacity", &arguments->capacity,
                    "bytes to add over all these devices, such as 64GiB; at least "
                    "8MiB a device");
  line.RepeatedText("--device", &arguments->devices,
                    "directory of a device of the shelf, or of a new one (empty, or made); repeated for each");
  return {line.command(), arguments, [arguments](Console& console) { return RunGrow(*arguments, console); }};
}

}  // namespace tensorshelf::cli
