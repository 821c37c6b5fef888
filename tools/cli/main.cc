#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "tools/cli/run.h"

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const char* no_colour = std::getenv("NO_COLOR");
  tensorshelf::cli::Console console{std::cout, std::cerr};
  console.progress = isatty(STDERR_FILENO) == 1;
  console.colour = isatty(STDOUT_FILENO) == 1 && (no_colour == nullptr || *no_colour == '\0');
  return tensorshelf::cli::Run(argc, argv, console);
}
