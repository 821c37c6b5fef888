#include "store/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tensorshelf {
namespace {

constexpr char kKindUrl[] = "tensorshelf.error_kind";
constexpr char kNameUrl[] = "tensorshelf.corrupt_name";
constexpr char kPlaceUrl[] = "tensorshelf.corrupt_place";  // block, offset, file; one space between

}  // namespace

absl::Status MakeError(absl::StatusCode code, ErrorKind kind, const std::string& message) {
  absl::Status status(code, message);
  status.SetPayload(kKindUrl, absl::Cord(absl::StrCat(static_cast<int>(kind))));
  return status;
}

ErrorKind KindOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kKindUrl);
  int kind = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &kind)) return ErrorKind::kNone;
  return static_cast<ErrorKind>(kind);
}

absl::Status MakeCorruption(const CorruptionInfo& info, const std::string& message) {
  absl::Status status = MakeError(absl::StatusCode::kDataLoss, ErrorKind::kCorruption, message);
  status.SetPayload(kNameUrl, absl::Cord(info.name));
  status.SetPayload(kPlaceUrl, absl::Cord(absl::StrCat(info.block, " ", info.offset, " ", info.file)));
  return status;
}

std::optional<CorruptionInfo> CorruptionOf(const absl::Status& status) {
  const auto name = status.GetPayload(kNameUrl);
  const auto place = status.GetPayload(kPlaceUrl);
  if (!name.has_value() || !place.has_value()) return std::nullopt;
  const std::string text(*place);
  const size_t first = text.find(' ');
  const size_t second = text.find(' ', first + 1);
  CorruptionInfo info{.name = std::string(*name)};
  if (second == std::string::npos || !absl::SimpleAtoi(text.substr(0, first), &info.block) ||
      !absl::SimpleAtoi(text.substr(first + 1, second - first - 1), &info.offset)) {
    return std::nullopt;
  }
  info.file = text.substr(second + 1);
  return info;
}

}  // namespace tensorshelf
