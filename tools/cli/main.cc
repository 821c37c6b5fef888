#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "engine/foundation/lock_order_checks.h"
#include "tools/cli/run.h"

namespace {

size_t TerminalColumns() {
  winsize window{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : 80;
}

}  // namespace

int main(int argc, char** argv) {
  tensorshelf::TurnOffLockOrderChecks();
  std::ios::sync_with_stdio(false);
  const char* no_colour = std::getenv("NO_COLOR");
  tensorshelf::cli::Console console{std::cout, std::cerr};
  console.progress = isatty(STDERR_FILENO) == 1;
  console.terminal = isatty(STDOUT_FILENO) == 1;
  console.colour = console.terminal && (no_colour == nullptr || *no_colour == '\0');
  if (isatty(STDIN_FILENO) == 1) console.in = &std::cin;
  if (console.terminal) {
    console.ask_columns = &TerminalColumns;
    console.columns = TerminalColumns();
  }
  return tensorshelf::cli::Run(argc, argv, console);
}
