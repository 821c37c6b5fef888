// Names: bytes that are valid UTF-8, 1 to 4096 of them, compared as bytes and never normalised. Any code point is
// allowed, NUL and line ends too, which is why messages must go through EscapeForTerminal.

#ifndef TENSORSHELF_STORE_NAME_H_
#define TENSORSHELF_STORE_NAME_H_

#include <string>

#include "absl/status/status.h"

namespace tensorshelf {

// InvalidArgument says what is wrong and at which byte. Strict UTF-8: no overlong forms, no surrogates, nothing beyond
// U+10FFFF.
absl::Status ValidateName(const std::string& name);

// For messages and terminals: control characters (C0, C1, DEL), line and paragraph separators, bidirectional overrides,
// invisible characters, quotes and backslashes become escapes (\n, \x1b, \u{202e}, \", \\), bytes that are not UTF-8
// become \xff. Everything else stays. Works on any bytes, also on what is not a valid name. Adds no quotes around it.
std::string EscapeForTerminal(const std::string& bytes);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_NAME_H_
