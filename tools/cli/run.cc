#include "tools/cli/run.h"

#include <CLI/CLI.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/errors.h"
#include "store/name.h"
#include "tools/cli/documentation.h"
#include "tools/cli/json_output.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

void PrintError(const Verb& verb, const absl::Status& status, Console& console) {
  const std::string name = verb.name();
  if (verb.common->json) console.out << Dump(ErrorJson(name, verb.common->shelf, status));
  // Messages come with names escaped where they are made; what else may stand in them (paths) is made safe here,
  // without escaping those again.
  console.err << "tensorshelf " << name << ": " << PrintableMessage(std::string(status.message())) << "\n";
}

}  // namespace

std::string Verb::name() const {
  const CLI::App* parent = command->get_parent();
  const bool grouped = parent != nullptr && parent->get_parent() != nullptr;
  return grouped ? absl::StrCat(parent->get_name(), " ", command->get_name()) : command->get_name();
}

ExitStatus ExitStatusOf(const absl::Status& status) {
  if (status.ok()) return ExitStatus::kClean;
  if (absl::IsDataLoss(status) || KindOf(status) == ErrorKind::kLostCommits) return ExitStatus::kDamage;
  return status.GetPayload(kUsagePayload).has_value() ? ExitStatus::kUsage : ExitStatus::kOperational;
}

int Run(int argc, const char* const* argv, Console& console) {
  CLI::App app(
      "Looks into a tensorshelf store, and moves tensors in and out of it, without Python and without stopping a "
      "program that writes to it.\n"
      "Exit status: 0 clean, 1 damage repaired, 4 damage found and left (5: some of it repaired), 8 could not be done, "
      "16 wrong command line.");
  app.name("tensorshelf");
  app.require_subcommand(1);
  app.set_version_flag("--version", TENSORSHELF_VERSION);
  const std::vector<Verb> verbs = {AddInfo(app),         AddLs(app),           AddStat(app),     AddCat(app),
                                   AddDiff(app),         AddDf(app),           AddMap(app),      AddVerify(app),
                                   AddFsck(app),         AddExport(app),       AddImport(app),   AddCreate(app),
                                   AddRm(app),           AddMv(app),           AddCp(app),       AddIndexBackup(app),
                                   AddIndexRestore(app), AddIndexSalvage(app), AddRelocate(app), AddGrow(app),
                                   AddCompact(app),      AddWatch(app)};
  std::string shell;
  CommandLine completion(app, "completion", "Print completions for a shell: tensorshelf completion bash.");
  completion.RequiredChoice("SHELL", &shell, "bash or zsh", {"bash", "zsh"});
  CommandLine man(app, "man", "Print the man page: tensorshelf man | man -l -.");
  // CLI11 reports by exceptions; they end here.
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const bool asked = error.get_exit_code() == 0;  // --help, --version
    app.exit(error, console.out, console.err);
    return static_cast<int>(asked ? ExitStatus::kClean : ExitStatus::kUsage);
  }
  if (completion.command()->parsed()) {
    console.out << (shell == "bash" ? BashCompletion(app) : ZshCompletion(app)) << std::flush;
    return static_cast<int>(ExitStatus::kClean);
  }
  if (man.command()->parsed()) {
    console.out << ManPage(app, TENSORSHELF_VERSION) << std::flush;
    return static_cast<int>(ExitStatus::kClean);
  }
  for (const Verb& verb : verbs) {
    if (!verb.command->parsed()) continue;
    const absl::StatusOr<ExitStatus> result = verb.run(console);
    if (!result.ok()) PrintError(verb, result.status(), console);
    console.out.flush();
    if (result.ok() && !console.out) {
      console.err << "tensorshelf " << verb.name() << ": standard output could not be written\n";
      return static_cast<int>(ExitStatus::kOperational);
    }
    return static_cast<int>(result.ok() ? *result : ExitStatusOf(result.status()));
  }
  return static_cast<int>(ExitStatus::kUsage);
}

}  // namespace tensorshelf::cli
