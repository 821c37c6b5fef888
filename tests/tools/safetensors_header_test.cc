// Goal: every rule for safetensors headers is enforced under its own name, and everything that must be accepted is.
// Method: one small header for each rule and each accepted oddity, as text; written headers against known bytes.

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tools/safetensors/header.h"
#include "tools/safetensors/rules.h"

namespace tensorshelf::safetensors {
namespace {

struct Case {
  const char* rule;
  std::string json;
  uint64_t data_bytes = 0;
  const char* message = "";
};

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat("{\"dtype\":\"", dtype, "\",\"shape\":", shape, ",\"data_offsets\":", offsets, "}");
}
std::string One(const std::string& entry) { return absl::StrCat("{\"a\":", entry, "}"); }
std::string Two(const std::string& a, const std::string& b) { return absl::StrCat("{\"a\":", a, ",\"b\":", b, "}"); }

std::vector<Case> BrokenHeaders() {
  const std::string good = Entry("F32", "[1]", "[0,4]");
  return {
      {"R4", "{\"\xff\":1}", 0, "byte 2"},
      {"R4", "{\"\xed\xa0\x80\":1}"},  // a surrogate
      {"R4", "{\"\xc0\x80\":1}"},      // an overlong form
      {"R5", ""},
      {"R5", "{", 0},
      {"R5", "not json"},
      {"R5", "{} {}"},
      {"R5", std::string("{}\0", 3), 0, "NUL"},
      {"R5", "\xef\xbb\xbf{}", 0, "byte order mark"},
      {"R5", "{\"a\":01}"},
      {"R5", "{\"\\ud800\":1}"},
      {"R6", std::string(129, '['), 0, "128"},
      {"R6", "{\"a\":" + std::string(128, '[') + std::string(128, ']') + "}"},
      {"R7", "[]"},
      {"R7", "3"},
      {"R7", "null"},
      {"R8", "{\"__metadata__\":[]}"},
      {"R8", "{\"__metadata__\":null}"},
      {"R8", "{\"__metadata__\":{\"k\":1}}", 0, "'k'"},
      {"R8", "{\"__metadata__\":{\"k\":{}}}"},
      {"R8", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"},
      {"R8", "{\"__metadata__\":{},\"\\u005f_metadata__\":{}}", 0, "twice"},
      {"R9", One("{}"), 0, "dtype"},
      {"R9", One("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}"), 4, "shape"},
      {"R9", One("{\"dtype\":\"F32\",\"shape\":[1]}"), 4, "data_offsets"},
      {"R9", One("1")},
      {"R9", One(Entry("F32", "null", "[0,4]")), 4},
      {"R10", One(Entry("f32", "[1]", "[0,4]")), 4, "'f32'"},
      {"R10", One("{\"dtype\":{\"F32\":null},\"shape\":[1],\"data_offsets\":[0,4]}"), 4},
      {"R11", One(Entry("F32", "[-1]", "[0,4]")), 4, "-1"},
      {"R11", One(Entry("F32", "[-0]", "[0,4]")), 4, "-0"},
      {"R11", One(Entry("F32", "[1.0]", "[0,4]")), 4, "1.0"},
      {"R11", One(Entry("F32", "[1e0]", "[0,4]")), 4},
      {"R11", One(Entry("F32", "[18446744073709551616]", "[0,4]")), 4, "18446744073709551616"},
      {"R11", One(Entry("F32", "[\"1\"]", "[0,4]")), 4},
      {"R11", One(Entry("F32", "[[1]]", "[0,4]")), 4},
      {"R11", One(Entry("F32", "[1]", "[0,4.0]")), 4, "data_offsets"},
      {"R12", One(Entry("F32", "[1]", "[0]")), 4, "1 numbers"},
      {"R12", One(Entry("F32", "[1]", "[0,4,4]")), 4, "more than two"},
      {"R12", One(Entry("F32", "[1]", "{}")), 4},
      {"R13", Two(Entry("U8", "[4]", "[0,4]"), Entry("U8", "[0]", "[4,2]")), 4, "begins at 4"},
      {"R14", One(Entry("F32", "[1]", "[4,8]")), 8, "begins at 4"},
      {"R15", Two(good, Entry("F32", "[1]", "[8,12]")), 12, "begins at 8, not at 4"},
      {"R16", Two(good, Entry("F32", "[1]", "[2,6]")), 6, "begins at 2, not at 4"},
      {"R16", Two(good, good), 4},
      {"R17", One(Entry("F32", "[2]", "[0,4]")), 4, "make 8 bytes, data_offsets 4"},
      {"R17", One(Entry("F4", "[2]", "[0,4]")), 4},
      {"R18", One(Entry("F32", "[9223372036854775808,4,0]", "[0,0]")), 0, "over 64 bits"},
      {"R18", One(Entry("F32", "[9223372036854775807]", "[0,4]")), 4, "32 bits"},
      {"R19", One(Entry("F4", "[3]", "[0,2]")), 2, "12 bits"},
      {"R19", One(Entry("F6_E2M3", "[1]", "[0,1]")), 1},
      {"R20", One(good), 5, "1 bytes after"},
      {"R20", "{}", 1},
      {"R21", One(good), 3, "ends at 4, the data at 3"},
      {"L1", absl::StrCat("{\"a\":", good, ",\"a\":", good, "}"), 4, "duplicate"},
      {"L2", absl::StrCat("{\"a\":", good, ",\"a\":", Entry("F32", "[1]", "[4,8]"), "}"), 8, "[4, 8]"},
      {"L3", One("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}"), 4, "'x'"},
      {"L4", One("[\"F32\",[1],[0,4]]"), 4, "array"},
      {"L5", One("{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"), 4, "\"dtype\""},
  };
}

TEST(SafetensorsHeader, RefusesWhatEachRuleForbidsAndNamesTheRule) {
  for (const Case& broken : BrokenHeaders()) {
    const absl::StatusOr<Header> header = ParseHeader(broken.json, broken.data_bytes);
    ASSERT_FALSE(header.ok()) << broken.rule << " accepted: " << broken.json;
    EXPECT_EQ(RuleOf(header.status()), broken.rule) << broken.json << "\n" << header.status();
    EXPECT_FAILS(header.status(), absl::StatusCode::kInvalidArgument, broken.message);
  }
}

TEST(SafetensorsHeader, ChecksTheLengthBeforeAnythingElse) {
  const auto length_bytes = [](uint64_t length) {
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
    return bytes;
  };
  EXPECT_EQ(RuleOf(CheckHeaderLength("", 0).status()), "R1");
  EXPECT_EQ(RuleOf(CheckHeaderLength("1234567", 7).status()), "R1");
  EXPECT_EQ(RuleOf(CheckHeaderLength(length_bytes(100'000'001), 200'000'000).status()), "R2");
  EXPECT_EQ(RuleOf(CheckHeaderLength(length_bytes(~uint64_t{0}), 8).status()), "R2");
  EXPECT_EQ(RuleOf(CheckHeaderLength(length_bytes(1), 8).status()), "R3");
  EXPECT_EQ(RuleOf(CheckHeaderLength(length_bytes(100'000'000), 100'000'007).status()), "R3");
  ASSERT_OK_AND_ASSIGN(const uint64_t length, CheckHeaderLength(length_bytes(100'000'000), 100'000'008));
  EXPECT_EQ(length, 100'000'000u);
}

TEST(SafetensorsHeader, AcceptsWhatIsUnusualButLegal) {
  const std::vector<Case> legal = {
      {"an empty header", "{}", 0},
      {"a scalar", One(Entry("F32", "[]", "[0,4]")), 4},
      {"a dimension of 0", One(Entry("F32", "[3,0]", "[0,0]")), 0},
      {"an empty tensor beside a neighbour", Two(Entry("U8", "[2]", "[0,2]"), Entry("U8", "[0]", "[0,0]")), 2},
      {"huge dimensions behind a 0", One(Entry("F32", "[0,9223372036854775808,4]", "[0,0]")), 0},
      {"white space", " \t\r\n" + One(Entry("U8", "[1]", "[0,1]")) + "   \n", 1},
      {"an empty name", "{\"\":" + Entry("U8", "[1]", "[0,1]") + "}", 1},
      {"a NUL in a name", "{\"\\u0000\":" + Entry("U8", "[1]", "[0,1]") + "}", 1},
      {"a path as a name", "{\"../../etc/passwd\":" + Entry("U8", "[1]", "[0,1]") + "}", 1},
      {"order against the offsets", Two(Entry("U8", "[1]", "[1,2]"), Entry("U8", "[1]", "[0,1]")), 2},
      {"unsorted types", Two(Entry("U8", "[1]", "[0,1]"), Entry("I64", "[1]", "[1,9]")), 9},
      {"4-bit values", One(Entry("F4", "[3,2]", "[0,3]")), 3},
      {"6-bit values", One(Entry("F6_E3M2", "[4]", "[0,3]")), 3},
      {"empty metadata", "{\"__metadata__\":{}}", 0},
      {"fields in another order", One("{\"data_offsets\":[0,1],\"shape\":[1],\"dtype\":\"U8\"}"), 1},
      {"a metadata key twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0},
  };
  for (const Case& accepted : legal) {
    EXPECT_TRUE(ParseHeader(accepted.json, accepted.data_bytes).ok())
        << accepted.rule << ": " << ParseHeader(accepted.json, accepted.data_bytes).status();
  }
}

TEST(SafetensorsHeader, KeepsWhatTheHeaderSays) {
  const std::string json =
      absl::StrCat("{\"__metadata__\":{\"b\":\"2\",\"a\":\"1\",\"b\":\"3\"},\"y\":", Entry("BF16", "[2,3]", "[4,16]"),
                   ",\"x\":", Entry("F32", "[]", "[0,4]"), "}");
  ASSERT_OK_AND_ASSIGN(const Header header, ParseHeader(json, 16));
  EXPECT_EQ(header.data_offset, 8 + json.size());
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "x");
  EXPECT_EQ(header.tensors[1].name, "y");
  EXPECT_STREQ(header.tensors[1].dtype->name, "BF16");
  EXPECT_EQ(header.tensors[1].shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(header.tensors[1].begin, 4u);
  EXPECT_EQ(*header.metadata, (FileMetadata{{"b", "3"}, {"a", "1"}}));
}

TEST(SafetensorsHeader, WritesWhatTheReferenceWrites) {
  std::vector<TensorEntry> tensors = {{"b", FindFileDtype("U8"), {3}, 0, 0}, {"a", FindFileDtype("F32"), {2, 3}, 0, 0}};
  ASSERT_OK_AND_ASSIGN(const std::string bytes, LayOutHeader(tensors, FileMetadata{{"k", "v\x7f\x01\xc3\xa9\"\\\n"}}));
  const std::string json =
      "{\"__metadata__\":{\"k\":\"v\x7f\\u0001\xc3\xa9\\\"\\\\\\n\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],"
      "\"data_offsets\":[0,24]},\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[24,27]}}";
  ASSERT_EQ(bytes.size() % 8, 0u);
  EXPECT_EQ(bytes.substr(8, json.size()), json);
  EXPECT_EQ(bytes.find_first_not_of(' ', 8 + json.size()), std::string::npos);
  EXPECT_EQ(static_cast<uint8_t>(bytes[0]), bytes.size() - 8);
  EXPECT_EQ(tensors[0].name, "a");
}

TEST(SafetensorsHeader, SortsByTypeDescendingThenName) {
  std::vector<TensorEntry> tensors;
  for (const char* dtype : {"BOOL", "U64", "F16"}) {
    for (const char* name : {"b", "a"}) tensors.push_back({absl::StrCat(dtype, name), FindFileDtype(dtype), {1}, 0, 0});
  }
  ASSERT_OK(LayOutHeader(tensors, std::nullopt));
  std::vector<std::string> names;
  for (const TensorEntry& tensor : tensors) names.push_back(tensor.name);
  EXPECT_EQ(names, (std::vector<std::string>{"U64a", "U64b", "F16a", "F16b", "BOOLa", "BOOLb"}));
  EXPECT_EQ(tensors.back().end, 8u + 8 + 2 + 2 + 1 + 1);
}

TEST(SafetensorsHeader, RefusesToWriteATensorNamedAsTheMetadata) {
  std::vector<TensorEntry> tensors = {{"__metadata__", FindFileDtype("U8"), {3}, 0, 0}};
  EXPECT_FAILS(LayOutHeader(tensors, std::nullopt).status(), absl::StatusCode::kInvalidArgument, "__metadata__");
}

TEST(SafetensorsHeader, FileMetadataComesBackInItsOrder) {
  const FileMetadata metadata = {{"z", "1"}, {"a", std::string("\0\"", 2)}, {"", ""}};
  ASSERT_OK_AND_ASSIGN(const FileMetadata back, ParseFileMetadata(FormatFileMetadata(metadata)));
  EXPECT_EQ(back, metadata);
  EXPECT_FALSE(ParseFileMetadata("{\"a\":\"b\"},\"t\":" + Entry("U8", "[0]", "[0,0]")).ok());
  EXPECT_FALSE(ParseFileMetadata("[]").ok());
}

TEST(SafetensorsHeader, ParsesHundredsOfThousandsOfTensors) {
  std::string json = "{";
  uint64_t offset = 0;
  while (json.size() < 20'000'000) {
    absl::StrAppend(&json, offset == 0 ? "" : ",", "\"t", offset,
                    "\":", Entry("U8", "[1]", absl::StrCat("[", offset, ",", offset + 1, "]")));
    ++offset;
  }
  json += "}";
  ASSERT_OK_AND_ASSIGN(const Header header, ParseHeader(json, offset));
  EXPECT_EQ(header.tensors.size(), offset);
}

}  // namespace
}  // namespace tensorshelf::safetensors
