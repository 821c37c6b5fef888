#include "tools/cli/documentation.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace tensorshelf::cli {
namespace {

struct Command {
  std::string name;  // "ls", "index backup"
  const CLI::App* app;
};

std::vector<Command> CommandsOf(const CLI::App& app) {
  std::vector<Command> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const auto below = command->get_subcommands([](const CLI::App*) { return true; });
    if (below.empty()) commands.push_back({command->get_name(), command});
    for (const CLI::App* verb : below) {
      commands.push_back({absl::StrCat(command->get_name(), " ", verb->get_name()), verb});
    }
  }
  return commands;
}

// "--json", "-l,--long": every spelling. Empty for arguments by position.
std::vector<std::string> Spellings(const CLI::Option& option) {
  std::vector<std::string> spellings;
  for (const std::string& name : option.get_snames()) spellings.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) spellings.push_back("--" + name);
  return spellings;
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// --- man ---

// A backslash begins a request, and so does a period or a quote at the start of a line; a plain hyphen may become a
// typographic one.
std::string Roff(const std::string& text) {
  const std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}, {"'", "\\(aq"}});
  return escaped.starts_with(".") ? "\\&" + escaped : escaped;
}

std::string Synopsis(const Command& command) {
  std::string text = absl::StrCat("\\fBtensorshelf ", Roff(command.name), "\\fR");
  for (const CLI::Option* option : command.app->get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = absl::StrCat("\\fI", Roff(option->get_name(true)), "\\fR");
    absl::StrAppend(&text, " ", option->get_required() ? name : absl::StrCat("[", name, "]"));
  }
  return text + " [options]";
}

std::string OptionLines(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : app.get_options()) {
    const std::vector<std::string> spellings = Spellings(*option);
    std::string head = spellings.empty() ? absl::StrCat("\\fI", Roff(option->get_name(true)), "\\fR")
                                         : absl::StrCat("\\fB", Roff(absl::StrJoin(spellings, ", ")), "\\fR");
    if (!spellings.empty() && TakesValue(*option)) head += " \\fIvalue\\fR";
    absl::StrAppend(&text, ".TP\n", head, "\n", Roff(option->get_description()), "\n");
  }
  return text;
}

// --- shells ---

std::string ShellQuoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::string FirstSentence(const std::string& text) {
  const size_t end = text.find_first_of(".\n:");
  return text.substr(0, end);
}

std::string AllSpellings(const CLI::App& app) {
  std::vector<std::string> all;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& spelling : Spellings(*option)) all.push_back(spelling);
  }
  return absl::StrJoin(all, " ");
}

// Words that come behind "tensorshelf", and behind a group such as "index".
std::string VerbWords(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.push_back(command->get_name());
  }
  return absl::StrJoin(words, " ");
}

}  // namespace

std::string ManPage(const CLI::App& app, const std::string& version) {
  std::string text = absl::StrCat(".TH TENSORSHELF 1 \"\" \"tensorshelf ", version, "\"\n.SH NAME\n",
                                  "tensorshelf \\- look into a tensor shelf and move tensors in and out of it\n",
                                  ".SH SYNOPSIS\n.B tensorshelf\n\\fIcommand\\fR \\fISHELF\\fR [arguments]\n",
                                  ".SH DESCRIPTION\n", Roff(app.get_description()), "\n.SH COMMANDS\n");
  for (const Command& command : CommandsOf(app)) {
    absl::StrAppend(&text, ".SS ", Roff(command.name), "\n", Synopsis(command), "\n.PP\n",
                    Roff(command.app->get_description()), "\n", OptionLines(*command.app));
  }
  absl::StrAppend(&text, ".SH EXIT STATUS\n.TP\n.B 0\nclean\n.TP\n.B 1\ndamage was found and repaired; of diff with ",
                  "\\-\\-exit\\-code: there are differences\n.TP\n.B 4\ndamage was found and is left\n.TP\n.B 5\n",
                  "some of the damage was repaired\n.TP\n.B 8\ncould not be done: not there, locked, full, refused\n",
                  ".TP\n.B 16\nthe command line is wrong\n.SH ENVIRONMENT\n.TP\n.B NO_COLOR\nwhen set and not empty, ",
                  "no colours\n");
  return text;
}

std::string BashCompletion(const CLI::App& app) {
  std::string cases, groups;
  for (const Command& command : CommandsOf(app)) {
    absl::StrAppend(&cases, "    ", ShellQuoted(command.name), ") options=", ShellQuoted(AllSpellings(*command.app)),
                    " ;;\n");
  }
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string below = VerbWords(*command);
    if (!below.empty()) absl::StrAppend(&groups, "    ", command->get_name(), ") verbs=", ShellQuoted(below), " ;;\n");
  }
  return absl::StrCat(
      "# bash completion for tensorshelf\n"
      "_tensorshelf() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} verbs='' options=''\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    COMPREPLY=($(compgen -W ",
      ShellQuoted(VerbWords(app)),
      " -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case $verb in\n",
      groups,
      "  esac\n"
      "  if [[ -n $verbs ]]; then\n"
      "    if ((COMP_CWORD == 2)); then\n"
      "      COMPREPLY=($(compgen -W \"$verbs\" -- \"$word\"))\n"
      "      return\n"
      "    fi\n"
      "    verb+=\" ${COMP_WORDS[2]}\"\n"
      "  fi\n"
      "  case $verb in\n",
      cases,
      "  esac\n"
      "  if [[ $word == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "  fi\n"
      "}\n"
      "complete -o filenames -F _tensorshelf tensorshelf\n");
}

std::string ZshCompletion(const CLI::App& app) {
  // In a specification [ ] and : have a meaning of their own.
  const auto described = [](const std::string& text) {
    return absl::StrReplaceAll(FirstSentence(text), {{"[", "("}, {"]", ")"}, {":", ","}});
  };
  const auto command_list = [&](const CLI::App& parent) {
    std::string list;
    for (const CLI::App* command : parent.get_subcommands([](const CLI::App*) { return true; })) {
      absl::StrAppend(&list, " ",
                      ShellQuoted(absl::StrCat(command->get_name(), ":", described(command->get_description()))));
    }
    return list;
  };
  const auto arguments = [&](const CLI::App& command) {
    std::string list;
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& spelling : Spellings(*option)) {
        absl::StrAppend(&list, " \\\n          ",
                        ShellQuoted(absl::StrCat(spelling, "[", described(option->get_description()), "]",
                                                 TakesValue(*option) ? ":value:_files" : "")));
      }
    }
    return list + " \\\n          '*:file:_files'";
  };
  std::string cases;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const auto below = command->get_subcommands([](const CLI::App*) { return true; });
    absl::StrAppend(&cases, "    ", command->get_name(), ")\n");
    if (below.empty()) {
      absl::StrAppend(&cases, "      _arguments", arguments(*command), "\n      ;;\n");
      continue;
    }
    absl::StrAppend(&cases, "      if ((CURRENT == 3)); then\n        verbs=(", command_list(*command),
                    ")\n        _describe verb verbs\n        return\n      fi\n      case $words[3] in\n");
    for (const CLI::App* verb : below) {
      absl::StrAppend(&cases, "        ", verb->get_name(), ") _arguments", arguments(*verb), " ;;\n");
    }
    cases += "      esac\n      ;;\n";
  }
  return absl::StrCat(
      "#compdef tensorshelf\n"
      "_tensorshelf() {\n"
      "  local -a verbs\n"
      "  if ((CURRENT == 2)); then\n"
      "    verbs=(",
      command_list(app),
      ")\n"
      "    _describe command verbs\n"
      "    return\n"
      "  fi\n"
      "  case $words[2] in\n",
      cases,
      "  esac\n"
      "}\n"
      "_tensorshelf \"$@\"\n");
}

}  // namespace tensorshelf::cli
