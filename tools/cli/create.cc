// tensorshelf create: a new shelf.

#include <map>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct CreateArguments : CommonOptions {
  std::string capacity;
  std::vector<std::string> devices;
  std::string prefill = "background";
  bool group_readable = false;
  bool tune = false;
  bool no_tune = false;
};

constexpr uint64_t kTunedCapacityMin = uint64_t{8} << 30;  // a smaller shelf is not worth seconds

absl::StatusOr<ExitStatus> RunCreate(const CreateArguments& arguments, Console& console) {
  static const std::map<std::string, Prefill> kPrefills = {
      {"none", Prefill::kNone}, {"background", Prefill::kBackground}, {"full", Prefill::kFull}};
  CreateOptions options;
  TS_ASSIGN_OR_RETURN(options.capacity, ParseBytes(arguments.capacity));
  options.devices = arguments.devices;
  options.prefill = kPrefills.at(arguments.prefill);
  options.group_readable = arguments.group_readable;
  if (arguments.tune && arguments.no_tune) {
    return absl::InvalidArgumentError("--tune and --no-tune exclude each other");
  }
  options.tune = arguments.tune || (!arguments.no_tune && options.capacity >= kTunedCapacityMin);
  {
    ProgressLine line(console, "filling");
    options.progress = [&line](uint64_t done, uint64_t total) { line.Update(done, total); };
    TS_RETURN_IF_ERROR(Store::Create(arguments.shelf, options));
  }
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  const StoreInfo info = store->info();
  uint64_t capacity = 0;
  for (const FileInfo& file : info.files) capacity += file.data_end - file.data_begin;
  if (arguments.json) {
    Json json = Envelope("create", info);
    json["capacity"] = capacity;
    json["files"] = info.files.size();
    console.out << Dump(json);
  } else {
    console.out << "created " << EscapeForTerminal(info.path) << ": " << FormatBytes(capacity) << " in "
                << FormatCount(info.files.size(), "data file") << "\n";
  }
  return ExitStatus::kClean;
}

}  // namespace

Verb AddCreate(CLI::App& app) {
  auto arguments = std::make_shared<CreateArguments>();
  CommandLine line(app, "create", "Make a new shelf; its space is allocated at once.", arguments.get());
  line.RequiredText("--capacity", &arguments->capacity, "bytes for tensors, such as 64GiB; at least 8MiB a device");
  line.RepeatedText("--device", &arguments->devices,
                    "directory on a disk for data files, repeated for each disk; without it, in the shelf itself");
  line.Choice(
      "--prefill", &arguments->prefill,
      "write every byte once, so that later writes are faster: none, background (while the shelf is open and idle; "
      "the default), full (now)",
      {"none", "background", "full"});
  line.Flag("--group-readable", &arguments->group_readable, "files 0640 in directories 0750, not 0600 and 0700");
  line.Flag("--tune", &arguments->tune,
            "measure each device for two seconds and remember how it is best driven; the default from 8GiB up");
  line.Flag("--no-tune", &arguments->no_tune, "do not");
  return {line.command(), arguments, [arguments](Console& console) { return RunCreate(*arguments, console); }};
}

}  // namespace tensorshelf::cli
