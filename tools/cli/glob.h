// Patterns over names: * any characters (also / and .), ? one character, [a-z] and [!a-z] one of a set, \ takes the
// next character as it is. Characters are UTF-8 code points.

#ifndef TENSORSHELF_TOOLS_CLI_GLOB_H_
#define TENSORSHELF_TOOLS_CLI_GLOB_H_

#include <string>

namespace tensorshelf::cli {

// Whether the text holds one of the characters that make a pattern.
bool IsPattern(const std::string& text);
// The literal beginning of a pattern, unescaped: every match starts with it.
std::string LiteralPrefix(const std::string& pattern);
// Time at most the product of both lengths. A [ without ] stands for itself.
bool MatchesPattern(const std::string& pattern, const std::string& name);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_GLOB_H_
