// Goal: exactly the valid UTF-8 names pass, and no name can act on a terminal. Method: every code point, the classic
// invalid forms, all single bytes, and random bytes.

#include "store/name.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

std::string Utf8(uint32_t c) {
  std::string out;
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3f)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6), tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | c >> 12), tail(6), tail(0);
  } else {
    out += static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0);
  }
  return out;
}

TEST(ValidateName, EveryCodePointButSurrogates) {
  for (uint32_t c = 0; c < 0x120000; c += c < 0x3000 ? 1 : 17) {
    const bool valid = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
    EXPECT_EQ(ValidateName(Utf8(c)).ok(), valid) << std::hex << c;
  }
}

TEST(ValidateName, SaysWhatAndWhere) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_FAILS(ValidateName(""), invalid, "empty");
  EXPECT_OK(ValidateName(std::string(4096, 'x')));
  EXPECT_FAILS(ValidateName(std::string(4097, 'x')), invalid, "4097");
  EXPECT_OK(ValidateName(std::string("a\0b\n", 4)));
  const std::string bad[] = {
      "\xc0\x80",         "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
      "\xf5\x80\x80\x80", "\x80",     "\xff",         "\xe2\x82",         "\xc3",         "\xf0\x9f\x98",
      "\xe2\x28\xa1"};
  for (const std::string& bytes : bad) {
    EXPECT_FAILS(ValidateName("ab" + bytes), invalid, "at byte 2");
    EXPECT_FAILS(ValidateName("ab" + bytes + "tail"), invalid, "at byte 2");
  }
}

TEST(EscapeForTerminal, KeepsTextAndEscapesTheRest) {
  EXPECT_EQ(EscapeForTerminal("layers.0/weight ü 名 😀"), "layers.0/weight ü 名 😀");
  EXPECT_EQ(EscapeForTerminal("a\n\r\t\x1b[31m\x7f"), "a\\n\\r\\t\\x1b[31m\\x7f");
  EXPECT_EQ(EscapeForTerminal(std::string("\0", 1)), "\\x00");
  EXPECT_EQ(EscapeForTerminal("\"'\\"), "\\\"\\'\\\\");
  EXPECT_EQ(EscapeForTerminal(Utf8(0x9b)), "\\u{9b}");  // C1: CSI in one character
  EXPECT_EQ(EscapeForTerminal(Utf8(0x202e) + "x"), "\\u{202e}x");
  EXPECT_EQ(EscapeForTerminal(Utf8(0x2028)), "\\u{2028}");
  EXPECT_EQ(EscapeForTerminal(Utf8(0x200b)), "\\u{200b}");
  EXPECT_EQ(EscapeForTerminal("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(EscapeForTerminal(""), "");
}

TEST(EscapeForTerminal, NeverLetsAControlThroughAndStaysInjective) {
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 12, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    const std::string shown = EscapeForTerminal(bytes);
    if (!shown.empty()) {
      EXPECT_OK(ValidateName(shown));
    }
    for (const unsigned char byte : shown) EXPECT_TRUE(byte >= 0x20 && byte != 0x7f);
    std::string other = bytes + "\n";
    EXPECT_NE(EscapeForTerminal(other), EscapeForTerminal(bytes + "\\n"));
  }
}

}  // namespace
}  // namespace tensorshelf
