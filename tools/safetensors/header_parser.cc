// JSON text -> entries, by events. A parser that builds a tree would keep the last of two equal keys, read -0 as 0 and
// make floating point of large integers, and so hide what L1, L2, L5 and R11 forbid.

#include <cstddef>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "tools/safetensors/header.h"
#include "tools/safetensors/rules.h"

namespace tensorshelf::safetensors {
namespace {

std::string Quoted(const std::string& name) { return absl::StrCat("'", EscapeForTerminal(name), "'"); }

// Bytes of the well-formed UTF-8 sequence at `at`, 0 when there is none: no overlong form, no surrogate, at most
// U+10FFFF.
size_t SequenceBytes(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) -> uint8_t { return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0; };
  const auto tail = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool second = tail(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf);
    return second && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool second = tail(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

absl::Status CheckUtf8(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = SequenceBytes(text, at);
    if (bytes == 0) return BrokenRule("R4", absl::StrCat("the header is not UTF-8 at its byte ", at));
    at += bytes;
  }
  return absl::OkStatus();
}

// What the JSON library would let through: a byte order mark, and a NUL byte, which it takes for the end of the text.
absl::Status CheckBytes(const std::string& text) {
  if (text.empty()) return BrokenRule("R5", "the header has a length of 0");
  if (text.compare(0, 3, "\xef\xbb\xbf") == 0) return BrokenRule("R5", "the header begins with a byte order mark");
  const size_t nul = text.find('\0');
  if (nul != std::string::npos) return BrokenRule("R5", absl::StrCat("a NUL byte at byte ", nul, " of the header"));
  return absl::OkStatus();
}

absl::Status CheckNesting(const std::string& text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kNestingMax) {
        return BrokenRule("R6", absl::StrCat("JSON nested deeper than ", kNestingMax, " at byte ", at));
      }
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return absl::OkStatus();
}

class EntryReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  ParsedEntries entries;
  absl::Status status;

  bool null() override { return Scalar("null"); }
  bool boolean(bool) override { return Scalar("a truth value"); }
  bool number_integer(number_integer_t value) override {
    // Only tokens with a minus sign come here, -0 too.
    return IsNumberPlace() ? BadNumber(value == 0 ? "-0" : absl::StrCat(value)) : Scalar("a number");
  }
  bool number_float(number_float_t, const string_t& token) override {
    return IsNumberPlace() ? BadNumber(token) : Scalar("a number");
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShapeItems) {
      entry().shape.push_back(value);
      return true;
    }
    if (state_ != State::kOffsetItems) return Scalar("a number");
    if (offsets_count_ < 2) (offsets_count_ == 0 ? entry().begin : entry().end) = value;
    ++offsets_count_;
    return offsets_count_ <= 2 || FailEntry("R12", "data_offsets has more than two numbers");
  }
  bool string(string_t& value) override {
    if (state_ == State::kMetadataValue) {
      SetMetadata(std::move(value));
      state_ = State::kMetadata;
      return true;
    }
    if (state_ != State::kDtype) return Scalar("a string");
    entry().dtype = FindFileDtype(value);
    state_ = State::kEntry;
    return entry().dtype != nullptr || FailEntry("R10", absl::StrCat("unknown dtype ", Quoted(value)));
  }
  bool binary(binary_t&) override { return Scalar("binary data"); }  // JSON text has none

  bool start_object(size_t) override {
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kMetadataStart:
        state_ = State::kMetadata;
        entries.metadata.emplace();
        return true;
      case State::kEntryStart:
        state_ = State::kEntry;
        return true;
      default:
        return Scalar("an object");
    }
  }
  bool end_object() override {
    if (state_ == State::kEntry) {
      const char* missing = !has_dtype_ ? "dtype" : !has_shape_ ? "shape" : !has_offsets_ ? "data_offsets" : nullptr;
      if (missing != nullptr) return FailEntry("R9", absl::StrCat("no field \"", missing, "\""));
    }
    state_ = state_ == State::kTop ? State::kEnd : State::kTop;
    return true;
  }
  bool start_array(size_t) override {
    switch (state_) {
      case State::kEntryStart:
        return FailEntry("L4", "the entry is an array, not an object");
      case State::kShape:
        state_ = State::kShapeItems;
        return true;
      case State::kOffsets:
        state_ = State::kOffsetItems;
        return true;
      default:
        return Scalar("an array");
    }
  }
  bool end_array() override {
    if (state_ == State::kOffsetItems && offsets_count_ != 2) {
      return FailEntry("R12", absl::StrCat("data_offsets has ", offsets_count_, " numbers, not two"));
    }
    state_ = State::kEntry;
    return true;
  }
  bool key(string_t& key) override {
    if (state_ == State::kTop) return StartEntry(key);
    if (state_ == State::kMetadata) {
      metadata_key_ = std::move(key);
      state_ = State::kMetadataValue;
      return true;
    }
    return StartField(key);
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    return Fail("R5",
                absl::StrCat("not one JSON value at byte ", position, " of the header (", Reason(error.what()), ")"));
  }

 private:
  enum class State {
    kStart,
    kTop,
    kEnd,
    kMetadataStart,
    kMetadata,
    kMetadataValue,
    kEntryStart,
    kEntry,
    kDtype,
    kShape,
    kShapeItems,
    kOffsets,
    kOffsetItems,
  };

  TensorEntry& entry() { return entries.tensors.back(); }
  bool IsNumberPlace() const { return state_ == State::kShapeItems || state_ == State::kOffsetItems; }

  bool StartEntry(string_t& key) {
    if (key == kMetadataKey) {
      if (entries.metadata.has_value()) return Fail("R8", "__metadata__ stands twice in the header");
      state_ = State::kMetadataStart;
      return true;
    }
    entries.tensors.emplace_back();
    entry().name = std::move(key);
    has_dtype_ = has_shape_ = has_offsets_ = false;
    offsets_count_ = 0;
    state_ = State::kEntryStart;
    return true;
  }

  bool StartField(const string_t& key) {
    bool* seen = nullptr;
    if (key == "dtype") {
      seen = &has_dtype_;
      state_ = State::kDtype;
    } else if (key == "shape") {
      seen = &has_shape_;
      state_ = State::kShape;
    } else if (key == "data_offsets") {
      seen = &has_offsets_;
      state_ = State::kOffsets;
    } else {
      return FailEntry("L3", absl::StrCat("unknown field ", Quoted(key)));
    }
    if (*seen) return FailEntry("L5", absl::StrCat("field \"", key, "\" stands twice"));
    *seen = true;
    return true;
  }

  // The last of two equal keys wins, as in the reference.
  void SetMetadata(std::string value) {
    auto [slot, inserted] = metadata_slots_.try_emplace(metadata_key_, entries.metadata->size());
    if (inserted) {
      entries.metadata->emplace_back(metadata_key_, std::move(value));
    } else {
      (*entries.metadata)[slot->second].second = std::move(value);
    }
  }

  bool BadNumber(const std::string& token) {
    return FailEntry(
        "R11", absl::StrCat(EscapeForTerminal(token), " in ", state_ == State::kShapeItems ? "shape" : "data_offsets",
                            " is not an unsigned 64-bit integer"));
  }

  // A value of a kind that has no place here.
  bool Scalar(const char* what) {
    switch (state_) {
      case State::kStart:
        return Fail("R7", absl::StrCat("the top level is ", what, ", not an object"));
      case State::kMetadataStart:
        return Fail("R8", absl::StrCat("__metadata__ is ", what, ", not an object"));
      case State::kMetadataValue:
        return Fail("R8", absl::StrCat("__metadata__ ", Quoted(metadata_key_), " is ", what, ", not a string"));
      case State::kDtype:
        return FailEntry("R10", absl::StrCat("dtype is ", what, ", not a string"));
      case State::kShape:
        return FailEntry("R9", absl::StrCat("shape is ", what, ", not an array"));
      case State::kOffsets:
        return FailEntry("R12", absl::StrCat("data_offsets is ", what, ", not an array of two numbers"));
      case State::kShapeItems:
      case State::kOffsetItems:
        return FailEntry("R11", absl::StrCat(what, state_ == State::kShapeItems ? " in shape" : " in data_offsets",
                                             " is not an unsigned 64-bit integer"));
      default:
        return FailEntry("R9", absl::StrCat("the entry is ", what, ", not an object"));
    }
  }

  bool FailEntry(const char* rule, const std::string& message) {
    return Fail(rule, absl::StrCat("tensor ", Quoted(entry().name), ": ", message));
  }
  bool Fail(const char* rule, const std::string& message) {
    if (status.ok()) status = BrokenRule(rule, message);
    return false;
  }

  // The library's text without its own number and position.
  static std::string Reason(const std::string& what) {
    const size_t colon = what.rfind(": ");
    return EscapeForTerminal(colon == std::string::npos ? what : what.substr(colon + 2));
  }

  State state_ = State::kStart;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  size_t offsets_count_ = 0;
  std::string metadata_key_;
  std::unordered_map<std::string, size_t> metadata_slots_;
};

}  // namespace

absl::StatusOr<ParsedEntries> ParseEntries(const std::string& json) {
  TS_RETURN_IF_ERROR(CheckUtf8(json));
  TS_RETURN_IF_ERROR(CheckBytes(json));
  TS_RETURN_IF_ERROR(CheckNesting(json));
  EntryReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  // Reading stops at the first entry that breaks a rule; what is not JSON at all further on is R5 all the same.
  if (!reader.status.ok() && RuleOf(reader.status) != "R5" && !nlohmann::json::accept(json)) {
    return BrokenRule("R5", absl::StrCat("the header is not JSON (and ", std::string(reader.status.message()), ")"));
  }
  TS_RETURN_IF_ERROR(reader.status);
  return std::move(reader.entries);
}

absl::StatusOr<FileMetadata> ParseFileMetadata(const std::string& json) {
  TS_ASSIGN_OR_RETURN(ParsedEntries parsed, ParseEntries(absl::StrCat("{\"", kMetadataKey, "\":", json, "}")));
  if (!parsed.tensors.empty() || !parsed.metadata.has_value()) return BrokenRule("R8", "not one map of strings");
  return *std::move(parsed.metadata);
}

}  // namespace tensorshelf::safetensors
