// The options of one verb, for CLI11: that library costs twenty seconds of compiling wherever it is included, so that
// is in command_line.cc and run.cc alone.

#ifndef TENSORSHELF_TOOLS_CLI_COMMAND_LINE_H_
#define TENSORSHELF_TOOLS_CLI_COMMAND_LINE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tensorshelf::cli {

struct CommonOptions {
  std::string shelf;
  bool json = false;
};

// Names as CLI11's: "--long", "-l,--long", or "NAME" for an argument without dashes, in the order of the calls. What
// `to` points to must live until the command line has been parsed, and keeps its value where the option is not given.
class CommandLine {
 public:
  // Adds a command with SHELF and --json. `name` may be of two words, "index backup": then it is a command of the
  // command `index`, which is made when it is not there.
  CommandLine(CLI::App& app, const char* name, const char* help, CommonOptions* common);

  // A command about no shelf.
  CommandLine(CLI::App& app, const char* name, const char* help);

  void Text(const char* name, std::string* to, const char* help);
  void RequiredText(const char* name, std::string* to, const char* help);
  void RequiredChoice(const char* name, std::string* to, const char* help, const std::vector<std::string>& values);
  void Choice(const char* name, std::string* to, const char* help, const std::vector<std::string>& values);
  void Number(const char* name, uint64_t* to, const char* help, uint64_t min, uint64_t max);
  void Flag(const char* name, bool* to, const char* help);
  // --name A --name B: one value each time.
  void RepeatedText(const char* name, std::vector<std::string>* to, const char* help);
  // Several values one behind the other, at least one; at most `count_max`, 0 for any number.
  void RequiredTexts(const char* name, std::vector<std::string>* to, const char* help, int count_max);

  CLI::App* command() const { return command_; }

 private:
  CLI::App* command_;
};

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_COMMAND_LINE_H_
