#include "tools/cli/console.h"

#include "absl/strings/ascii.h"

namespace tensorshelf::cli {

bool Confirm(Console& console, const std::string& question) {
  if (console.in == nullptr) return false;
  console.err << question << " [y/N] " << std::flush;
  std::string answer;
  std::getline(*console.in, answer);
  answer = absl::AsciiStrToLower(absl::StripAsciiWhitespace(answer));
  return answer == "y" || answer == "yes";
}

}  // namespace tensorshelf::cli
