// Goal: patterns match what they say, quickly. Method: a table, and a pattern that trips matchers that try everything.

#include "tools/cli/glob.h"

#include <gtest/gtest.h>

namespace tensorshelf::cli {
namespace {

TEST(Glob, Matches) {
  struct Case {
    const char* pattern;
    const char* name;
    bool matches;
  };
  const Case kCases[] = {
      {"*", "", true},
      {"*", "a/b.c", true},
      {"a?c", "abc", true},
      {"a?c", "ac", false},
      {"a?", "a\xc3\xa9", true},
      {"[a-c]x", "bx", true},
      {"[!a-c]x", "bx", false},
      {"[!a-c]x", "dx", true},
      {"[]]", "]", true},
      {"[a", "[a", true},
      {"\\*", "*", true},
      {"\\*", "a", false},
      {"*.weight", "l.0.weight", true},
      {"*.weight", "l.0.weights", false},
      {"a*b*c", "axxbyybzc", true},
      {"a*b*c", "axxbyyb", false},
      {"layers.[0-9].*", "layers.7.w", true},
      {"layers.[0-9].*", "layers.17.w", false},
      {"", "", true},
      {"", "a", false},
      {"[\xc3\xa0-\xc3\xbf]", "\xc3\xa9", true},
  };
  for (const Case& c : kCases) EXPECT_EQ(MatchesPattern(c.pattern, c.name), c.matches) << c.pattern << " on " << c.name;
}

TEST(Glob, KnowsTheLiteralBeginning) {
  EXPECT_EQ(LiteralPrefix("layers.*.w"), "layers.");
  EXPECT_EQ(LiteralPrefix("a\\*b?"), "a*b");
  EXPECT_EQ(LiteralPrefix("plain"), "plain");
  EXPECT_TRUE(IsPattern("a[b"));
  EXPECT_FALSE(IsPattern("a/b.c"));
}

TEST(Glob, IsNotExponential) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(MatchesPattern(pattern + "b", std::string(4000, 'a')));
}

}  // namespace
}  // namespace tensorshelf::cli
