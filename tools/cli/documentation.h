// The man page and the shells' completions, made from the same declarations as the help.

#ifndef TENSORSHELF_TOOLS_CLI_DOCUMENTATION_H_
#define TENSORSHELF_TOOLS_CLI_DOCUMENTATION_H_

#include <string>

namespace CLI {
class App;
}

namespace tensorshelf::cli {

// `app` with all its commands.
std::string ManPage(const CLI::App& app, const std::string& version);
std::string BashCompletion(const CLI::App& app);
std::string ZshCompletion(const CLI::App& app);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_DOCUMENTATION_H_
