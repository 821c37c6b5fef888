// tensorshelf index backup, restore and salvage: the index alone.

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/salvage.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

constexpr char kSalvageHelp[] =
    "Make the index anew from the trailers that lie behind objects in the data files, on top of a backup where there "
    "is "
    "one. Every object is read and compared with its checksums; the old index is renamed, not removed.\n"
    "Trailers cannot know deletes, renames, copies, which puts belonged together, and objects without a trailer (by "
    "default those below 64 KiB). Each name goes to the newest object that was put under it, older ones are named "
    "name@generation: deleted and replaced objects may be back. With --backup only what is newer than the backup comes "
    "from trailers.";

struct BackupArguments : CommonOptions {
  std::string destination;
};

absl::StatusOr<ExitStatus> RunBackup(const BackupArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForWriting(arguments.shelf, console));
  TS_RETURN_IF_ERROR(store->Backup(arguments.destination));
  const StoreInfo info = store->info();
  if (arguments.json) {
    Json json = Envelope("index backup", info);
    json["backup"] = arguments.destination;
    console.out << Dump(json);
  } else {
    console.out << "the index of commit " << info.commit << " is in " << EscapeForTerminal(arguments.destination)
                << "\n";
  }
  TS_RETURN_IF_ERROR(store->Close());
  return ExitStatus::kClean;
}

struct RestoreArguments : CommonOptions {
  std::string backup;
};

absl::StatusOr<ExitStatus> RunRestore(const RestoreArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const RestoreReport report, RestoreShelfIndex(arguments.shelf, arguments.backup, nullptr));
  const uint64_t missing = report.witnessed > report.commit ? report.witnessed - report.commit : 0;
  if (arguments.json) {
    Json json = {{"schema_version", kSchemaVersion}, {"verb", "index restore"}, {"shelf", arguments.shelf}};
    json.update({{"commit", report.commit}, {"witnessed_commit", report.witnessed}, {"missing_commits", missing}});
    json["old_index"] = report.old_index.empty() ? Json(nullptr) : Json(report.old_index);
    console.out << Dump(json);
  } else {
    console.out << "restored the index of commit " << report.commit << "\n";
    if (!report.old_index.empty()) console.out << "the old one is " << EscapeForTerminal(report.old_index) << "\n";
    if (missing > 0) {
      console.out << Painted(console, Colour::kYellow, absl::StrCat(FormatCount(missing, "newer commit"), " missing"))
                  << ": `index salvage --backup` finds what their trailers tell, `fsck --repair --accept-loss` gives "
                     "them up\n";
    }
  }
  return missing > 0 ? ExitStatus::kDamage : ExitStatus::kClean;
}

struct SalvageArguments : CommonOptions {
  std::string backup;
  std::vector<std::string> devices;
  bool dry_run = false;
};

const char* FateText(SalvagedObject::Fate fate) {
  static constexpr const char* kTexts[] = {"named", "renamed", "overlapped", "damaged", "unreadable"};
  return kTexts[static_cast<size_t>(fate)];
}

Json ObjectJson(const SalvagedObject& object) {
  return {{"name", object.name},
          {"fate", FateText(object.fate)},
          {"source", object.source == SalvagedObject::Source::kBackup ? "backup" : "trailer"},
          {"generation", object.generation},
          {"size", object.bytes},
          {"detail", object.detail}};
}

// Objects that are as they were in the backup say nothing new.
bool IsNews(const SalvagedObject& object) {
  return object.source == SalvagedObject::Source::kTrailer || object.fate != SalvagedObject::Fate::kNamed;
}

absl::StatusOr<ExitStatus> RunSalvage(const SalvageArguments& arguments, Console& console) {
  SalvageOptions options;
  options.backup = arguments.backup;
  options.devices = arguments.devices;
  options.dry_run = arguments.dry_run;
  Json objects = Json::array();
  ProgressLine line(console, "salvage");
  options.progress = [&](uint64_t done, uint64_t total) { line.Update(done, total); };
  options.on_object = [&](const SalvagedObject& object) {
    if (!IsNews(object)) return;
    if (arguments.json) return objects.push_back(ObjectJson(object));
    line.Clear();
    const bool taken = object.fate == SalvagedObject::Fate::kNamed || object.fate == SalvagedObject::Fate::kRenamed;
    console.out << (taken ? "" : Painted(console, Colour::kYellow, absl::StrCat(FateText(object.fate), "  ")))
                << EscapeForTerminal(object.name) << "  " << FormatBytes(object.bytes) << ", generation "
                << object.generation;
    if (!object.detail.empty()) console.out << ": " << PrintableMessage(object.detail);
    console.out << "\n";
  };
  TS_ASSIGN_OR_RETURN(const SalvageReport report, SalvageIndex(arguments.shelf, options));
  line.Clear();
  if (arguments.json) {
    Json json = {{"schema_version", kSchemaVersion}, {"verb", "index salvage"}, {"shelf", arguments.shelf}};
    json.update({{"dry_run", arguments.dry_run},
                 {"commit", report.commit},
                 {"trailers", report.trailers},
                 {"named", report.named},
                 {"renamed", report.renamed},
                 {"overlapped", report.overlapped},
                 {"damaged", report.damaged},
                 {"unreadable", report.unreadable},
                 {"lost_names", report.lost_names},
                 {"objects", std::move(objects)}});
    json["old_index"] = report.old_index.empty() ? Json(nullptr) : Json(report.old_index);
    console.out << Dump(json);
  } else {
    console.out << (arguments.dry_run ? "would salvage " : "salvaged ")
                << FormatCount(report.named + report.renamed, "object") << ", " << report.renamed
                << " under another name; " << report.overlapped << " overwritten, " << report.damaged << " damaged, "
                << report.unreadable << " unreadable";
    if (report.lost_names > 0) console.out << ", " << FormatCount(report.lost_names, "name") << " of the backup lost";
    console.out << "\n";
    if (!report.old_index.empty()) console.out << "the old index is " << EscapeForTerminal(report.old_index) << "\n";
    console.out << "cannot be known: deletes, renames, copies, the bounds of commits, objects without a trailer\n";
  }
  return report.damaged + report.unreadable + report.lost_names > 0 ? ExitStatus::kDamage : ExitStatus::kClean;
}

}  // namespace

Verb AddIndexBackup(CLI::App& app) {
  auto arguments = std::make_shared<BackupArguments>();
  CommandLine line(
      app, "index backup",
      "Copy the index, not the tensors, into a directory; again into the same one, what changed. A program "
      "that writes to the shelf makes backups itself: store.backup(directory).",
      arguments.get());
  line.RequiredText("DESTINATION", &arguments->destination, "a directory, best on another disk; made when absent");
  return {line.command(), arguments, [arguments](Console& console) { return RunBackup(*arguments, console); }};
}

Verb AddIndexRestore(CLI::App& app) {
  auto arguments = std::make_shared<RestoreArguments>();
  CommandLine line(app, "index restore",
                   "Put the newest index of a backup in the place of the shelf's. Exit status 4 when commits that were "
                   "made since are missing from it.",
                   arguments.get());
  line.RequiredText("BACKUP", &arguments->backup, "the directory of the backup");
  return {line.command(), arguments, [arguments](Console& console) { return RunRestore(*arguments, console); }};
}

Verb AddIndexSalvage(CLI::App& app) {
  auto arguments = std::make_shared<SalvageArguments>();
  CommandLine line(app, "index salvage", kSalvageHelp, arguments.get());
  line.Text("--backup", &arguments->backup, "directory of an index backup to start from");
  line.RepeatedText("--device", &arguments->devices, "another directory to look for data files in");
  line.Flag("--dry-run", &arguments->dry_run, "say what would be found; changes nothing");
  return {line.command(), arguments, [arguments](Console& console) { return RunSalvage(*arguments, console); }};
}

}  // namespace tensorshelf::cli
