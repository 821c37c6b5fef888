// Entries -> header bytes, as the reference writer lays them out: dtype rank descending, then name ascending by bytes.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "tools/safetensors/header.h"
#include "tools/safetensors/rules.h"

namespace tensorshelf::safetensors {
namespace {

void AppendNumbers(const std::vector<uint64_t>& numbers, std::string* to) {
  to->push_back('[');
  for (size_t i = 0; i < numbers.size(); ++i) absl::StrAppend(to, i == 0 ? "" : ",", numbers[i]);
  to->push_back(']');
}

void AppendEntry(const TensorEntry& tensor, std::string* to) {
  AppendJsonString(tensor.name, to);
  absl::StrAppend(to, ":{\"dtype\":\"", tensor.dtype->name, "\",\"shape\":");
  AppendNumbers(tensor.shape, to);
  absl::StrAppend(to, ",\"data_offsets\":");
  AppendNumbers({tensor.begin, tensor.end}, to);
  to->push_back('}');
}

absl::Status SortAndPlace(std::vector<TensorEntry>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.dtype->rank != b.dtype->rank ? a.dtype->rank > b.dtype->rank : a.name < b.name;
  });
  uint64_t offset = 0;
  for (TensorEntry& tensor : tensors) {
    if (tensor.name == kMetadataKey) {
      return absl::InvalidArgumentError("a tensor named __metadata__ cannot be in a safetensors file");
    }
    TS_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensor.name, *tensor.dtype, tensor.shape));
    if (bytes > ~uint64_t{0} - offset) return BrokenRule("R18", "the sum of all tensors is over 64 bits");
    tensor.begin = offset;
    tensor.end = offset += bytes;
  }
  return absl::OkStatus();
}

}  // namespace

void AppendJsonString(const std::string& text, std::string* to) {
  static constexpr char kHex[] = "0123456789abcdef";
  to->push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        to->append("\\\"");
        break;
      case '\\':
        to->append("\\\\");
        break;
      case '\b':
        to->append("\\b");
        break;
      case '\f':
        to->append("\\f");
        break;
      case '\n':
        to->append("\\n");
        break;
      case '\r':
        to->append("\\r");
        break;
      case '\t':
        to->append("\\t");
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          absl::StrAppend(to, "\\u00", std::string{kHex[c >> 4], kHex[c & 15]});
        } else {
          to->push_back(c);
        }
    }
  }
  to->push_back('"');
}

std::string FormatFileMetadata(const FileMetadata& metadata) {
  std::string text = "{";
  for (const auto& [key, value] : metadata) {
    if (text.size() > 1) text.push_back(',');
    AppendJsonString(key, &text);
    text.push_back(':');
    AppendJsonString(value, &text);
  }
  text.push_back('}');
  return text;
}

absl::StatusOr<std::string> LayOutHeader(std::vector<TensorEntry>& tensors,
                                         const std::optional<FileMetadata>& metadata) {
  TS_RETURN_IF_ERROR(SortAndPlace(tensors));
  std::string json = "{";
  if (metadata.has_value()) absl::StrAppend(&json, "\"", kMetadataKey, "\":", FormatFileMetadata(*metadata));
  for (const TensorEntry& tensor : tensors) {
    if (json.size() > 1) json.push_back(',');
    AppendEntry(tensor, &json);
  }
  json.push_back('}');
  json.append((8 - json.size() % 8) % 8, ' ');
  if (json.size() > kHeaderBytesMax) {
    return BrokenRule("R2", absl::StrCat("a header of ", json.size(), " bytes, at most ", kHeaderBytesMax,
                                         " are allowed; export in shards"));
  }
  std::string bytes(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) bytes[i] = static_cast<char>(json.size() >> (8 * i));
  return bytes + json;
}

}  // namespace tensorshelf::safetensors
