#include "tools/safetensors/shard_index.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "tools/safetensors/header.h"

namespace tensorshelf::safetensors {
namespace {

absl::Status CheckFileName(const std::string& name) {
  const bool stays = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                     name.find('\0') == std::string::npos;
  if (stays) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("shard '", EscapeForTerminal(name), "' is not a plain file name in the index's folder"));
}

// Reads {"weight_map": {name: file}} and skips all else.
class WeightMapReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  ShardIndex index;
  absl::Status status;
  bool found = false;

  bool null() override { return Other(); }
  bool boolean(bool) override { return Other(); }
  bool number_integer(number_integer_t) override { return Other(); }
  bool number_unsigned(number_unsigned_t) override { return Other(); }
  bool number_float(number_float_t, const string_t&) override { return Other(); }
  bool binary(binary_t&) override { return Other(); }
  bool string(string_t& value) override {
    if (!InMap()) return Other();
    absl::Status checked = CheckFileName(value);
    if (!checked.ok()) return Fail(checked);
    if (!index.weight_map.try_emplace(name_, std::move(value)).second) {
      return Fail(absl::InvalidArgumentError(absl::StrCat("tensor '", EscapeForTerminal(name_), "' stands twice")));
    }
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ == 1 && in_weight_map_) {
      if (found) return Fail(absl::InvalidArgumentError("weight_map stands twice"));
      found = true;
    } else if (InMap()) {
      return Other();
    }
    return Deepen();
  }
  bool start_array(size_t) override { return Other() && Deepen(); }
  bool end_object() override { return --depth_, true; }
  bool end_array() override { return --depth_, true; }
  bool key(string_t& key) override {
    if (depth_ == 1) in_weight_map_ = key == "weight_map";
    if (depth_ == 2 && in_weight_map_) name_ = std::move(key);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(absl::InvalidArgumentError(absl::StrCat("not JSON at byte ", position)));
  }

 private:
  bool InMap() const { return depth_ == 2 && in_weight_map_; }
  bool Other() {
    if (depth_ == 0) return Fail(absl::InvalidArgumentError("the top level is not an object"));
    if (depth_ == 1 && in_weight_map_) return Fail(absl::InvalidArgumentError("weight_map is not an object"));
    if (InMap())
      return Fail(
          absl::InvalidArgumentError(absl::StrCat("weight_map '", EscapeForTerminal(name_), "' is not a file name")));
    return true;
  }
  bool Deepen() {
    if (++depth_ <= kNestingMax) return true;
    return Fail(absl::InvalidArgumentError(absl::StrCat("JSON nested deeper than ", kNestingMax)));
  }
  bool Fail(absl::Status why) {
    if (status.ok()) status = std::move(why);
    return false;
  }

  size_t depth_ = 0;
  bool in_weight_map_ = false;
  std::string name_;
};

}  // namespace

absl::StatusOr<ShardIndex> ParseShardIndex(const std::string& json) {
  if (json.find('\0') != std::string::npos) return absl::InvalidArgumentError("a NUL byte in the index");
  WeightMapReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  TS_RETURN_IF_ERROR(reader.status);
  if (!reader.found) return absl::InvalidArgumentError("no weight_map");
  return std::move(reader.index);
}

std::string FormatShardIndex(const ShardIndex& index, uint64_t total_bytes) {
  std::string text =
      absl::StrCat("{\n  \"metadata\": {\n    \"total_size\": ", total_bytes, "\n  },\n  \"weight_map\": {");
  const char* separator = "\n    ";
  for (const auto& [name, file] : index.weight_map) {
    text.append(separator);
    AppendJsonString(name, &text);
    text.append(": ");
    AppendJsonString(file, &text);
    separator = ",\n    ";
  }
  text.append(index.weight_map.empty() ? "}\n}\n" : "\n  }\n}\n");
  return text;
}

}  // namespace tensorshelf::safetensors
