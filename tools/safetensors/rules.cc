#include "tools/safetensors/rules.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace tensorshelf::safetensors {
namespace {

constexpr char kRulePayload[] = "tensorshelf/safetensors-rule";

}  // namespace

absl::Status BrokenRule(const std::string& rule, const std::string& message) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(rule, ": ", message));
  status.SetPayload(kRulePayload, absl::Cord(rule));
  return status;
}

std::string RuleOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kRulePayload);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace tensorshelf::safetensors
