#include "tools/cli/command_line.h"

#include <CLI/CLI.hpp>

namespace tensorshelf::cli {

CommandLine::CommandLine(CLI::App& app, const char* name, const char* help, CommonOptions* common)
    : command_(app.add_subcommand(name, help)) {
  RequiredText("SHELF", &common->shelf, "directory of the shelf");
  Flag("--json", &common->json, "print JSON (tools/cli/JSON.md), schema_version 1");
}

void CommandLine::Text(const char* name, std::string* to, const char* help) { command_->add_option(name, *to, help); }

void CommandLine::RequiredText(const char* name, std::string* to, const char* help) {
  command_->add_option(name, *to, help)->required();
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
