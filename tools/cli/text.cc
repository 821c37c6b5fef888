#include "tools/cli/text.h"

#include <array>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "store/dtype.h"
#include "store/name.h"

namespace tensorshelf::cli {

std::string FormatBytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.95 and more would be shown as 1024.0.
  while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatCount(uint64_t count, const char* noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

std::string FormatShape(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

std::string FormatDuration(double seconds) {
  if (seconds < 0) seconds = 0;
  if (seconds < 120) return absl::StrFormat("%.0f s", seconds);
  if (seconds < 2 * 3600) return absl::StrFormat("%.0f min", seconds / 60);
  if (seconds < 48 * 3600) return absl::StrFormat("%.0f h", seconds / 3600);
  return absl::StrFormat("%.0f d", seconds / 86400);
}

std::string FormatTime(int64_t ns_since_epoch) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixNanos(ns_since_epoch), absl::UTCTimeZone());
}

std::string FormatDtype(const ObjectRecord& record) {
  if (record.kind == ObjectKind::kBytes) return "bytes";
  if (const Dtype* dtype = FindDtype(record.dtype)) return dtype->name;
  if (const std::string* name = record.FindTlv(kTlvDtypeName)) return EscapeForTerminal(*name);
  return absl::StrCat("dtype ", record.dtype);
}

std::string Hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) absl::StrAppend(&text, absl::Hex(byte, absl::kZeroPad2));
  return text;
}

absl::StatusOr<uint64_t> ParseBytes(const std::string& text) {
  const size_t digits = text.find_first_not_of("0123456789.");
  const std::string number = text.substr(0, digits);
  std::string unit = digits == std::string::npos ? "" : absl::AsciiStrToLower(text.substr(digits));
  unit.erase(0, unit.find_first_not_of(' ') == std::string::npos ? unit.size() : unit.find_first_not_of(' '));
  if (!unit.empty() && unit.back() == 'b') unit.pop_back();
  double factor = 1;
  if (!unit.empty()) {
    static constexpr char kPrefixes[] = "kmgtpe";
    const size_t power = std::string(kPrefixes).find(unit[0]);
    const bool binary = unit.size() == 2 && unit[1] == 'i';
    if (power == std::string::npos || (unit.size() > 1 && !binary)) factor = 0;
    factor = factor == 0 ? 0 : std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  uint64_t whole = 0;
  if (factor == 1 && absl::SimpleAtoi(number, &whole)) return whole;
  double value = 0;
  if (factor == 0 || !absl::SimpleAtod(number, &value) || value * factor >= 18446744073709551616.0) {
    return UsageError(absl::StrCat("'", EscapeForTerminal(text), "' is not a size such as 4096, 100MB or 64GiB"));
  }
  return static_cast<uint64_t>(value * factor);
}

std::string PrintableMessage(const std::string& message) {
  // EscapeForTerminal also escapes quotes and backslashes, which messages have of their own.
  std::string text;
  std::string run;
  const auto flush = [&] {
    text += EscapeForTerminal(run);
    run.clear();
  };
  for (const char c : message) {
    if (c == '\\' || c == '"' || c == '\'') {
      flush();
      text.push_back(c);
    } else {
      run.push_back(c);
    }
  }
  flush();
  return text;
}

std::string Painted(const Console& console, Colour colour, const std::string& text) {
  if (!console.colour || text.empty()) return text;
  static constexpr std::array<const char*, 6> kCodes = {"1", "2", "31", "32", "33", "34"};
  return absl::StrCat("\x1b[", kCodes[static_cast<size_t>(colour)], "m", text, "\x1b[0m");
}

}  // namespace tensorshelf::cli
