#include "store/uuid.h"

#include <sys/random.h>

#include <cerrno>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/disk.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

constexpr size_t kTextLength = 36;

bool IsDash(size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = absl::ascii_tolower(static_cast<unsigned char>(c));
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

absl::StatusOr<Uuid> RandomUuid() {
  Uuid uuid;
  size_t done = 0;
  while (done < uuid.size()) {
    const ssize_t got = getrandom(uuid.data() + done, uuid.size() - done, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError(errno, "getrandom");
    done += static_cast<size_t>(got);
  }
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x40);  // version 4
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);  // variant of RFC 4122
  return uuid;
}

std::string UuidText(const Uuid& uuid) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(kTextLength);
  for (const uint8_t byte : uuid) {
    if (IsDash(text.size())) text.push_back('-');
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

absl::StatusOr<Uuid> ParseUuid(const std::string& text) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(absl::StrCat("not a uuid: \"", EscapeForTerminal(text.substr(0, 64)), "\""));
  };
  if (text.size() != kTextLength) return bad();
  Uuid uuid{};
  size_t digits = 0;
  for (size_t i = 0; i < kTextLength; ++i) {
    if (IsDash(i)) {
      if (text[i] != '-') return bad();
      continue;
    }
    const int value = HexValue(text[i]);
    if (value < 0) return bad();
    uuid[digits / 2] = static_cast<uint8_t>(uuid[digits / 2] << 4 | value);
    ++digits;
  }
  return uuid;
}

}  // namespace tensorshelf
