// Numbers, times and messages as people read and type them. Pure functions.

#ifndef TENSORSHELF_TOOLS_CLI_TEXT_H_
#define TENSORSHELF_TOOLS_CLI_TEXT_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "index/record.h"
#include "tools/cli/console.h"

namespace tensorshelf::cli {

std::string FormatBytes(uint64_t bytes);                    // "4.0 MiB"; exact below 1 KiB
std::string FormatCount(uint64_t count, const char* noun);  // "1 name", "3 names"
std::string FormatShape(std::span<const uint64_t> shape);   // "[2, 3]"
std::string FormatDuration(double seconds);                 // "3 s", "12 min", "5 h", "40 d"
std::string FormatTime(int64_t ns_since_epoch);             // "2026-05-01T12:00:00Z"
std::string FormatDtype(const ObjectRecord& record);        // "float32", "bytes", "dtype 99"
std::string Hex(std::span<const uint8_t> bytes);

// "64GiB", "10 MB", "1.5TiB", "4096". InvalidArgument quotes the text.
absl::StatusOr<uint64_t> ParseBytes(const std::string& text);

// A message whose names are escaped already: control bytes and what is not UTF-8 become escapes, all else stays.
std::string PrintableMessage(const std::string& message);

enum class Colour { kBold, kDim, kRed, kGreen, kYellow, kBlue };
// `text` in a colour, or as it is when the console has none.
std::string Painted(const Console& console, Colour colour, const std::string& text);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_TEXT_H_
