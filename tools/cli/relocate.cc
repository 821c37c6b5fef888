// tensorshelf relocate: a shelf whose devices were moved.

#include "store/relocate.h"

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/uuid.h"
#include "tools/cli/json_output.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct RelocateArguments : CommonOptions {
  std::vector<std::string> devices;
  bool dry_run = false;
};

absl::StatusOr<ExitStatus> RunRelocate(const RelocateArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::vector<RelocatedDevice> devices,
                      RelocateShelf(arguments.shelf, arguments.devices, arguments.dry_run, nullptr));
  Json list = Json::array();
  uint64_t missing = 0;
  for (const RelocatedDevice& device : devices) {
    missing += device.directory.empty() ? 1 : 0;
    list.push_back({{"device", UuidText(device.uuid)},
                    {"old_hint", device.old_hint},
                    {"directory", device.directory.empty() ? Json(nullptr) : Json(device.directory)}});
    if (arguments.json) continue;
    console.out << UuidText(device.uuid) << "  "
                << (device.directory.empty() ? Painted(console, Colour::kRed, "not found") + ", was said to be at " +
                                                   EscapeForTerminal(device.old_hint)
                                             : EscapeForTerminal(device.directory))
                << "\n";
  }
  if (arguments.json) {
    Json json = {{"schema_version", kSchemaVersion}, {"verb", "relocate"}, {"shelf", arguments.shelf}};
    json["dry_run"] = arguments.dry_run;
    json["devices"] = std::move(list);
    console.out << Dump(json);
  }
  return missing == 0 ? ExitStatus::kClean : ExitStatus::kOperational;
}

}  // namespace

Verb AddRelocate(CLI::App& app) {
  auto arguments = std::make_shared<RelocateArguments>();
  CommandLine line(app, "relocate",
                   "Find the shelf's data files by their labels and write down where they are, after a device was "
                   "mounted or moved elsewhere. A shelf that was moved as a whole needs no such thing.",
                   arguments.get());
  line.RepeatedText("--device", &arguments->devices, "a directory to look in, besides the shelf and the old places");
  line.Flag("--dry-run", &arguments->dry_run, "say what is found; changes nothing");
  return {line.command(), arguments, [arguments](Console& console) { return RunRelocate(*arguments, console); }};
}

}  // namespace tensorshelf::cli
