#include "store/name.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "index/record.h"

namespace tensorshelf {
namespace {

struct CodePoint {
  uint32_t value = 0;
  size_t length = 0;  // 0: not UTF-8 here
};

// Table 3-7 of the Unicode standard: the second byte's range depends on the first, which is what keeps overlong forms,
// surrogates and values beyond U+10FFFF out.
CodePoint Decode(const std::string& bytes, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1};
  uint8_t low = 0x80, high = 0xbf;
  size_t length = 0;
  uint32_t value = 0;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2, value = lead & 0x1f;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3, value = lead & 0x0f;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4, value = lead & 0x07;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return {};
  }
  if (bytes.size() - at < length) return {};
  for (size_t i = 1; i < length; ++i) {
    const uint8_t next = byte(at + i);
    if (next < low || next > high) return {};
    value = value << 6 | (next & 0x3f);
    low = 0x80, high = 0xbf;
  }
  return {value, length};
}

// What a terminal would act on instead of showing.
bool IsUnsafe(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) ||                           // C0, DEL, C1
         c == 0x061c || c == 0x200e || c == 0x200f ||                     // direction marks
         c == 0x2028 || c == 0x2029 ||                                    // line and paragraph separators
         (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ||  // bidirectional overrides and isolates
         c == 0xfeff || (c >= 0x200b && c <= 0x200d) || c == 0x2060;      // nothing to see, but part of the name
}

void AppendFormatted(std::string& out, const char* format, uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, format, value);
  out += text;
}

}  // namespace

absl::Status ValidateName(const std::string& name) {
  if (name.empty()) return absl::InvalidArgumentError("a name must not be empty");
  if (name.size() > kNameBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a name has at most ", kNameBytesMax, " bytes, this one has ",
                                                   name.size(), ": \"", EscapeForTerminal(name.substr(0, 64)),
                                                   "...\""));
  }
  for (size_t at = 0; at < name.size();) {
    const CodePoint point = Decode(name, at);
    if (point.length == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a name must be UTF-8, this one is not at byte ", at, ": \"", EscapeForTerminal(name), "\""));
    }
    at += point.length;
  }
  return absl::OkStatus();
}

std::string EscapeForTerminal(const std::string& bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const CodePoint point = Decode(bytes, at);
    if (point.length == 0) {
      AppendFormatted(out, "\\x%02x", static_cast<uint8_t>(bytes[at++]));
      continue;
    }
    if (point.value == '\n') {
      out += "\\n";
    } else if (point.value == '\r') {
      out += "\\r";
    } else if (point.value == '\t') {
      out += "\\t";
    } else if (point.value == '"' || point.value == '\'' || point.value == '\\') {
      out += '\\';
      out += static_cast<char>(point.value);
    } else if (point.value < 0x80 && IsUnsafe(point.value)) {
      AppendFormatted(out, "\\x%02x", point.value);
    } else if (IsUnsafe(point.value)) {
      AppendFormatted(out, "\\u{%x}", point.value);
    } else {
      out.append(bytes, at, point.length);
    }
    at += point.length;
  }
  return out;
}

}  // namespace tensorshelf
