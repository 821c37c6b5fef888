// Goal: man page and completions know every verb and option that the tool has, and shells take them.
// Method: the verbs are read off the tool's own help; the scripts are run by the shells where they are installed.

#include <cstdio>
#include <cstdlib>
#include <set>

#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

// "--json", "-l": the words of a help text that are options.
std::set<std::string> OptionsIn(const std::string& help) {
  std::set<std::string> options;
  std::istringstream words(help);
  for (std::string word; words >> word;) {
    for (size_t at = 0; at != std::string::npos;) {
      const size_t end = word.find(',', at);
      const std::string part = word.substr(at, end == std::string::npos ? end : end - at);
      if (part.size() > 2 && part.rfind("--", 0) == 0 &&
          part.find_first_not_of("abcdefghijklmnopqrstuvwxyz-") == std::string::npos) {
        options.insert(part);
      }
      at = end == std::string::npos ? end : end + 1;
    }
  }
  return options;
}

const std::vector<std::vector<std::string>> kVerbs = {{"cat"},
                                                      {"cp"},
                                                      {"create"},
                                                      {"df"},
                                                      {"diff"},
                                                      {"export"},
                                                      {"fsck"},
                                                      {"import"},
                                                      {"index", "backup"},
                                                      {"info"},
                                                      {"ls"},
                                                      {"map"},
                                                      {"mv"},
                                                      {"rm"},
                                                      {"stat"},
                                                      {"verify"},
                                                      {"index", "restore"},
                                                      {"index", "salvage"},
                                                      {"grow"},
                                                      {"compact"},
                                                      {"relocate"},
                                                      {"watch"}};

class Documentation : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(Documentation, KnowsTheVerbAndItsOptions) {
  std::vector<std::string> arguments = GetParam();
  std::string name = arguments[0];
  if (arguments.size() == 2) name += " " + arguments[1];
  arguments.push_back("--help");
  const Outcome help = Call(arguments);
  ASSERT_EQ(help.status, 0);
  const std::string man = Call({"man"}).out;
  EXPECT_NE(man.find(".SS " + name + "\n"), std::string::npos) << name;
  const std::string bash = Call({"completion", "bash"}).out, zsh = Call({"completion", "zsh"}).out;
  const std::set<std::string> options = OptionsIn(help.out);
  EXPECT_TRUE(options.contains("--json")) << help.out;
  for (const std::string& option : options) {
    std::string in_man;
    for (const char c : option) in_man += c == '-' ? "\\-" : std::string(1, c);
    EXPECT_NE(man.find(in_man), std::string::npos) << name << " " << option;
    EXPECT_NE(bash.find(option), std::string::npos) << name << " " << option;
    EXPECT_NE(zsh.find(option), std::string::npos) << name << " " << option;
  }
}

INSTANTIATE_TEST_SUITE_P(Verbs, Documentation, ::testing::ValuesIn(kVerbs), [](const auto& info) {
  return info.param.size() == 1 ? info.param[0] : info.param[0] + "_" + info.param[1];
});

std::string RunShell(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  char piece[4096];
  for (size_t got = 0; (got = fread(piece, 1, sizeof piece, pipe)) > 0;) out.append(piece, got);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return out;
}

TEST(Completion, BashCompletes) {
  if (std::system("bash -c true 2>/dev/null") != 0) GTEST_SKIP() << "no bash";
  const fs::path script = fs::temp_directory_path() / absl::StrCat("tensorshelf_completion_", getpid());
  WriteAll(script, Call({"completion", "bash"}).out);
  const auto complete = [&](const std::string& words, int at) {
    return RunShell(absl::StrCat("bash -c 'source ", script.string(), "; COMP_WORDS=(", words, "); COMP_CWORD=", at,
                                 "; _tensorshelf; echo \"${COMPREPLY[*]}\"'"));
  };
  EXPECT_EQ(complete("tensorshelf ver", 1), "verify\n");
  EXPECT_EQ(complete("tensorshelf index b", 2), "backup\n");
  EXPECT_EQ(complete("tensorshelf ls x --li", 3), "--literal --limit\n");
  EXPECT_EQ(complete("tensorshelf index salvage x --dr", 4), "--dry-run\n");
  fs::remove(script);
}

TEST(Completion, ZshTakesIt) {
  if (std::system("zsh -c true 2>/dev/null") != 0) GTEST_SKIP() << "no zsh";
  const fs::path script = fs::temp_directory_path() / absl::StrCat("tensorshelf_zsh_", getpid());
  WriteAll(script, Call({"completion", "zsh"}).out);
  EXPECT_EQ(RunShell("zsh -n " + script.string() + " 2>&1"), "");
  fs::remove(script);
}

}  // namespace
}  // namespace tensorshelf::cli
