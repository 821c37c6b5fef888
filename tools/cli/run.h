// The whole command-line tool as a function.

#ifndef TENSORSHELF_TOOLS_CLI_RUN_H_
#define TENSORSHELF_TOOLS_CLI_RUN_H_

#include "absl/status/status.h"
#include "tools/cli/console.h"

namespace tensorshelf::cli {

// Parses, runs one verb, prints its error if there is one. Returns the exit status of the process.
int Run(int argc, const char* const* argv, Console& console);

// Damage (DataLoss, lost commits) is 4, a bad option 16, all else 8.
ExitStatus ExitStatusOf(const absl::Status& status);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_RUN_H_
