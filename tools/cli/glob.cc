#include "tools/cli/glob.h"

#include <cstddef>
#include <cstdint>

namespace tensorshelf::cli {
namespace {

// Bytes of the character at `at`; names are valid UTF-8, patterns may not be, so never beyond the end.
size_t CharacterBytes(const std::string& text, size_t at) {
  size_t end = at + 1;
  while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) ++end;
  return end - at;
}

std::string TakeCharacter(const std::string& text, size_t* at) {
  const std::string character = text.substr(*at, CharacterBytes(text, *at));
  *at += character.size();
  return character;
}

// The set that begins with [ at `at`. Returns where it ends (behind ]), or 0 when it has no end. UTF-8 compares as its
// code points do.
size_t MatchSet(const std::string& pattern, size_t at, const std::string& character, bool* matches) {
  ++at;
  const bool negated = at < pattern.size() && pattern[at] == '!';
  if (negated) ++at;
  bool found = false;
  for (bool first = true; at < pattern.size(); first = false) {
    if (pattern[at] == ']' && !first) {
      *matches = found != negated;
      return at + 1;
    }
    const std::string low = TakeCharacter(pattern, &at);
    std::string high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      ++at;
      high = TakeCharacter(pattern, &at);
    }
    found = found || (low <= character && character <= high);
  }
  return 0;
}

// Matches one element of the pattern, not a star, with the character of the name at `name_at`; advances both.
bool MatchOne(const std::string& pattern, size_t* pattern_at, const std::string& name, size_t* name_at) {
  const std::string character = TakeCharacter(name, name_at);
  if (pattern[*pattern_at] == '?') return ++*pattern_at, true;
  if (pattern[*pattern_at] == '[') {
    bool matches = false;
    const size_t end = MatchSet(pattern, *pattern_at, character, &matches);
    if (end != 0) {
      *pattern_at = end;
      return matches;
    }
  } else if (pattern[*pattern_at] == '\\' && *pattern_at + 1 < pattern.size()) {
    ++*pattern_at;
  }
  return TakeCharacter(pattern, pattern_at) == character;
}

}  // namespace

bool IsPattern(const std::string& text) { return text.find_first_of("*?[\\") != std::string::npos; }

std::string LiteralPrefix(const std::string& pattern) {
  std::string prefix;
  for (size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] == '*' || pattern[at] == '?' || pattern[at] == '[') break;
    if (pattern[at] == '\\' && at + 1 < pattern.size()) ++at;
    prefix.push_back(pattern[at]);
  }
  return prefix;
}

bool MatchesPattern(const std::string& pattern, const std::string& name) {
  // Going back to the last star is enough: an earlier star could only have taken more of what the last one can take.
  size_t pattern_at = 0, name_at = 0, star_pattern = std::string::npos, star_name = 0;
  while (name_at < name.size()) {
    if (pattern_at < pattern.size() && pattern[pattern_at] == '*') {
      star_pattern = ++pattern_at;
      star_name = name_at;
      continue;
    }
    if (pattern_at < pattern.size() && MatchOne(pattern, &pattern_at, name, &name_at)) continue;
    if (star_pattern == std::string::npos) return false;
    pattern_at = star_pattern;
    star_name += CharacterBytes(name, star_name);
    name_at = star_name;
  }
  while (pattern_at < pattern.size() && pattern[pattern_at] == '*') ++pattern_at;
  return pattern_at == pattern.size();
}

}  // namespace tensorshelf::cli
