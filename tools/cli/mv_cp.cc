// tensorshelf mv and cp: names are moved, or made for the same objects; no tensor is read or written.

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

struct NameArguments : CommonOptions {
  std::string from, to;
  bool prefix = false;
  bool replace = false;
  bool yes = false;
};

enum class NameVerb { kMove, kCopy };
const char* VerbName(NameVerb verb) { return verb == NameVerb::kMove ? "mv" : "cp"; }

// Names under `to` that would lose their object.
absl::StatusOr<uint64_t> CountReplaced(Store& store, const NameArguments& arguments) {
  std::vector<std::string> targets;
  TS_RETURN_IF_ERROR(store.Scan(arguments.from, arguments.from, [&](const std::string& name, uint64_t) {
    targets.push_back(arguments.to + name.substr(arguments.from.size()));
    return true;
  }));
  uint64_t replaced = 0;
  for (const std::string& target : targets) {
    TS_RETURN_IF_ERROR(ValidateName(target));
    const absl::StatusOr<bool> taken = store.Contains(target);
    replaced += !taken.ok() || *taken ? 1 : 0;
  }
  return replaced;
}

absl::StatusOr<ExitStatus> RunNames(NameVerb verb, const NameArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForWriting(arguments.shelf, console));
  if (arguments.prefix && arguments.replace && !arguments.yes) {
    TS_ASSIGN_OR_RETURN(const uint64_t replaced, CountReplaced(*store, arguments));
    if (replaced > 1) {
      const std::string what = FormatCount(replaced, "object");
      if (console.in == nullptr) return UsageError(absl::StrCat("this replaces ", what, ": say --yes"));
      if (!Confirm(console, absl::StrCat("replace ", what, "?"))) return absl::CancelledError("nothing was changed");
    }
  }
  TS_ASSIGN_OR_RETURN(Transaction transaction, store->Begin());
  if (verb == NameVerb::kMove) {
    if (arguments.prefix) {
      transaction.RenamePrefix(arguments.from, arguments.to, arguments.replace);
    } else {
      transaction.Rename(arguments.from, arguments.to, arguments.replace);
    }
  } else if (arguments.prefix) {
    transaction.ClonePrefix(arguments.from, arguments.to, arguments.replace);
  } else {
    transaction.Clone(arguments.from, arguments.to, arguments.replace);
  }
  TS_ASSIGN_OR_RETURN(const CommitResult result, transaction.Commit());
  if (result.names_changed == 0) {
    return absl::NotFoundError(absl::StrCat("no name begins with '", EscapeForTerminal(arguments.from), "'"));
  }
  const StoreInfo info = store->info();
  const char* done = verb == NameVerb::kMove ? "moved" : "copied";
  if (arguments.json) {
    Json json = Envelope(VerbName(verb), info);
    json[done] = result.names_changed;
    console.out << Dump(json);
  } else {
    console.out << done << " " << FormatCount(result.names_changed, "name");
    if (result.commit > 0) console.out << ", in commit " << result.commit;
    console.out << "\n";
  }
  TS_RETURN_IF_ERROR(store->Close());
  return ExitStatus::kClean;
}

Verb AddNames(CLI::App& app, NameVerb verb, const char* help) {
  auto arguments = std::make_shared<NameArguments>();
  CommandLine line(app, VerbName(verb), help, arguments.get());
  line.RequiredText("FROM", &arguments->from, "a whole name, or with --prefix how names begin");
  line.RequiredText("TO", &arguments->to, "the new name, or what the new names begin with instead of FROM");
  line.Flag("--prefix", &arguments->prefix, "FROM and TO are prefixes");
  line.Flag("--replace", &arguments->replace, "replace objects that have the new names; without it they are an error");
  line.Flag("-y,--yes", &arguments->yes, "do not ask before more than one object is replaced");
  return {line.command(), arguments,
          [arguments, verb](Console& console) { return RunNames(verb, *arguments, console); }};
}

}  // namespace

Verb AddMv(CLI::App& app) { return AddNames(app, NameVerb::kMove, "Rename objects, in one commit. Moves no data."); }

Verb AddCp(CLI::App& app) {
  return AddNames(app, NameVerb::kCopy,
                  "Give objects a second name, in one commit. Copies no data: both names share it until one of them is "
                  "replaced.");
}

}  // namespace tensorshelf::cli
