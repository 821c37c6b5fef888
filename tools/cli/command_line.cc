#include "tools/cli/command_line.h"

#include <CLI/CLI.hpp>

namespace tensorshelf::cli {
namespace {

struct Group {
  const char* name;
  const char* help;
};
constexpr Group kGroups[] = {
    {"index", "The index alone: what names and records are kept in, without the tensors' bytes."}};

CLI::App* AddCommand(CLI::App& app, const std::string& name, const char* help) {
  for (const Group& group : kGroups) {
    const std::string before = std::string(group.name) + " ";
    if (name.compare(0, before.size(), before) != 0) continue;
    const std::vector<CLI::App*> there =
        app.get_subcommands([&](CLI::App* command) { return command->get_name() == group.name; });
    CLI::App* parent = there.empty() ? app.add_subcommand(group.name, group.help) : there[0];
    parent->require_subcommand(1);
    return parent->add_subcommand(name.substr(before.size()), help);
  }
  return app.add_subcommand(name, help);
}

}  // namespace

CommandLine::CommandLine(CLI::App& app, const char* name, const char* help) : command_(AddCommand(app, name, help)) {}

CommandLine::CommandLine(CLI::App& app, const char* name, const char* help, CommonOptions* common)
    : CommandLine(app, name, help) {
  RequiredText("SHELF", &common->shelf, "directory of the shelf");
  Flag("--json", &common->json, "print JSON (tools/cli/JSON.md), schema_version 1");
}

void CommandLine::Text(const char* name, std::string* to, const char* help) { command_->add_option(name, *to, help); }

void CommandLine::RequiredText(const char* name, std::string* to, const char* help) {
  command_->add_option(name, *to, help)->required();
}

void CommandLine::RequiredChoice(const char* name, std::string* to, const char* help,
                                 const std::vector<std::string>& values) {
  command_->add_option(name, *to, help)->required()->check(CLI::IsMember(values));
}

void CommandLine::Choice(const char* name, std::string* to, const char* help, const std::vector<std::string>& values) {
  command_->add_option(name, *to, help)->check(CLI::IsMember(values));
}

void CommandLine::Number(const char* name, uint64_t* to, const char* help, uint64_t min, uint64_t max) {
  command_->add_option(name, *to, help)->check(CLI::Range(min, max));
}

void CommandLine::Flag(const char* name, bool* to, const char* help) { command_->add_flag(name, *to, help); }

void CommandLine::RepeatedText(const char* name, std::vector<std::string>* to, const char* help) {
  command_->add_option(name, *to, help)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void CommandLine::RequiredTexts(const char* name, std::vector<std::string>* to, const char* help, int count_max) {
  CLI::Option* option = command_->add_option(name, *to, help)->required();
  if (count_max > 0) option->expected(1, count_max);
}

}  // namespace tensorshelf::cli
