// tensorshelf rm: takes names out of a shelf.

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct RmArguments : CommonOptions {
  std::vector<std::string> names;
  bool prefix = false;
  bool missing_ok = false;
  bool yes = false;
  bool dry_run = false;
};

// What there is to remove. Nobody else can change it: the shelf is open for writing.
absl::StatusOr<std::vector<std::string>> Collect(Store& store, const RmArguments& arguments) {
  std::vector<std::string> found;
  const auto collect = [&](const std::string& name, uint64_t) {
    found.push_back(name);
    return true;
  };
  for (const std::string& name : arguments.names) {
    if (arguments.prefix) {
      TS_RETURN_IF_ERROR(store.Scan(name, name, collect));
      continue;
    }
    TS_RETURN_IF_ERROR(ValidateName(name));
    bool there = false;
    // Not Find: a name whose record is damaged can be removed all the same.
    TS_RETURN_IF_ERROR(store.Scan(name, name, [&](const std::string& next, uint64_t) {
      there = next == name;
      return false;
    }));
    if (there) {
      found.push_back(name);
    } else if (!arguments.missing_ok) {
      return absl::NotFoundError(
          absl::StrCat("no object named '", EscapeForTerminal(name), "' (--prefix takes all names that begin so)"));
    }
  }
  return found;
}

absl::StatusOr<ExitStatus> RunRm(const RmArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, arguments.dry_run ? OpenForLooking(arguments.shelf, console)
                                                                            : OpenForWriting(arguments.shelf, console));
  TS_ASSIGN_OR_RETURN(const std::vector<std::string> names, Collect(*store, arguments));
  uint64_t commit = 0;
  if (!arguments.dry_run && !names.empty()) {
    if (names.size() > 1 && !arguments.yes) {
      const std::string what =
          absl::StrCat(FormatCount(names.size(), "name"), ", from '", EscapeForTerminal(names.front()), "' to '",
                       EscapeForTerminal(names.back()), "'");
      if (console.in == nullptr) return UsageError(absl::StrCat("this removes ", what, ": say --yes"));
      if (!Confirm(console, absl::StrCat("remove ", what, "?"))) return absl::CancelledError("nothing was removed");
    }
    TS_ASSIGN_OR_RETURN(Transaction transaction, store->Begin());
    if (arguments.prefix) {
      for (const std::string& prefix : arguments.names) transaction.DeletePrefix(prefix);
    } else {
      for (const std::string& name : names) transaction.Delete(name, /*missing_ok=*/true);
    }
    TS_ASSIGN_OR_RETURN(const CommitResult result, transaction.Commit());
    commit = result.commit;
  }
  const StoreInfo info = store->info();
  if (arguments.json) {
    Json json = Envelope("rm", info);
    json.update({{"dry_run", arguments.dry_run}, {"removed", names.size()}});
    if (arguments.dry_run) json["names"] = names;
    console.out << Dump(json);
  } else {
    if (arguments.dry_run) {
      for (const std::string& name : names) console.out << EscapeForTerminal(name) << "\n";
    }
    console.out << (arguments.dry_run ? "would remove " : "removed ") << FormatCount(names.size(), "name");
    if (commit > 0) console.out << ", in commit " << commit;
    console.out << "\n";
  }
  TS_RETURN_IF_ERROR(store->Close());
  return ExitStatus::kClean;
}

}  // namespace

Verb AddRm(CLI::App& app) {
  auto arguments = std::make_shared<RmArguments>();
  CommandLine line(app, "rm",
                   "Remove names, all of them in one commit. Space is free again when an object's last name is gone.",
                   arguments.get());
  line.RequiredTexts("NAME", &arguments->names, "whole names", 0);
  line.Flag("--prefix", &arguments->prefix, "each NAME is a prefix: everything that begins so");
  line.Flag("--missing-ok", &arguments->missing_ok, "a NAME that is not there is no error");
  line.Flag("-y,--yes", &arguments->yes, "do not ask before more than one name is removed");
  line.Flag("--dry-run", &arguments->dry_run, "say what would be removed; changes nothing");
  return {line.command(), arguments, [arguments](Console& console) { return RunRm(*arguments, console); }};
}

}  // namespace tensorshelf::cli
