// One verb of the command line: its options, declared to CLI11, and what it does.

#ifndef TENSORSHELF_TOOLS_CLI_VERB_H_
#define TENSORSHELF_TOOLS_CLI_VERB_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "tools/cli/command_line.h"
#include "tools/cli/console.h"

namespace tensorshelf::cli {

struct Verb {
  // "ls", "index backup".
  std::string name() const;

  CLI::App* command = nullptr;                  // owned by the App it was added to
  std::shared_ptr<const CommonOptions> common;  // filled when the command line has been parsed
  std::function<absl::StatusOr<ExitStatus>(Console&)> run;
};

// Each in the file of its name, but mv and cp in mv_cp.cc and those of the index in index_verbs.cc.
Verb AddCat(CLI::App& app);
Verb AddCompact(CLI::App& app);
Verb AddCp(CLI::App& app);
Verb AddCreate(CLI::App& app);
Verb AddDf(CLI::App& app);
Verb AddDiff(CLI::App& app);
Verb AddExport(CLI::App& app);
Verb AddFsck(CLI::App& app);
Verb AddGrow(CLI::App& app);
Verb AddImport(CLI::App& app);
Verb AddIndexBackup(CLI::App& app);
Verb AddIndexRestore(CLI::App& app);
Verb AddIndexSalvage(CLI::App& app);
Verb AddInfo(CLI::App& app);
Verb AddLs(CLI::App& app);
Verb AddMap(CLI::App& app);
Verb AddMv(CLI::App& app);
Verb AddRelocate(CLI::App& app);
Verb AddRm(CLI::App& app);
Verb AddStat(CLI::App& app);
Verb AddVerify(CLI::App& app);
Verb AddWatch(CLI::App& app);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_VERB_H_
