// Goal: an index of shards is read strictly where it matters, and leniently elsewhere. Method: small texts.

#include "tools/safetensors/shard_index.h"

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace tensorshelf::safetensors {
namespace {

TEST(ShardIndex, ReadsTheWeightMapAndSkipsTheRest) {
  ASSERT_OK_AND_ASSIGN(const ShardIndex index,
                       ParseShardIndex(R"({"metadata":{"total_size":-1.5,"weight_map":{"x":[1,{}]}},"more":[[],{}],)"
                                       R"("weight_map":{"a":"1.safetensors","b":"2.safetensors"}})"));
  EXPECT_EQ(index.weight_map, (std::map<std::string, std::string>{{"a", "1.safetensors"}, {"b", "2.safetensors"}}));
}

TEST(ShardIndex, RefusesWhatCouldMeanSomethingElse) {
  const std::pair<const char*, const char*> kBroken[] = {
      {"{}", "no weight_map"},
      {"[]", "top level"},
      {"{", "not JSON"},
      {R"({"weight_map":[]})", "not an object"},
      {R"({"weight_map":null})", "not an object"},
      {R"({"weight_map":{"a":1}})", "'a'"},
      {R"({"weight_map":{"a":{}}})", "'a'"},
      {R"({"weight_map":{"a":["x"]}})", "'a'"},
      {R"({"weight_map":{"a":"x","a":"y"}})", "twice"},
      {R"({"weight_map":{},"weight_map":{}})", "twice"},
  };
  for (const auto& [json, message] : kBroken) {
    EXPECT_FAILS(ParseShardIndex(json).status(), absl::StatusCode::kInvalidArgument, message);
  }
}

TEST(ShardIndex, FilesStayInTheFolder) {
  for (const char* file : {"", ".", "..", "../x", "/etc/passwd", "a/b", "a\\u0000b"}) {
    const std::string json = std::string(R"({"weight_map":{"a":")") + file + "\"}}";
    EXPECT_FAILS(ParseShardIndex(json).status(), absl::StatusCode::kInvalidArgument, "plain file name");
  }
}

TEST(ShardIndex, WhatIsWrittenIsReadBack) {
  const ShardIndex index{{{"a\n\"", "1"}, {"b", "2"}}};
  const std::string text = FormatShardIndex(index, 7);
  ASSERT_OK_AND_ASSIGN(const ShardIndex back, ParseShardIndex(text));
  EXPECT_EQ(back.weight_map, index.weight_map);
  EXPECT_EQ(FormatShardIndex({{{"b", "2"}}}, 7),
            "{\n  \"metadata\": {\n    \"total_size\": 7\n  },\n  \"weight_map\": {\n    \"b\": \"2\"\n  }\n}\n");
}

}  // namespace
}  // namespace tensorshelf::safetensors
