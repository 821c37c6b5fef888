// Entries -> a header whose tensors cover the data exactly; and the way there from a file.

#include <algorithm>
#include <limits>
#include <span>
#include <tuple>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "tools/safetensors/header.h"
#include "tools/safetensors/rules.h"

namespace tensorshelf::safetensors {
namespace {

std::string Tensor(const std::string& name) { return absl::StrCat("tensor '", EscapeForTerminal(name), "'"); }

absl::Status CheckNamesOnce(const std::vector<TensorEntry>& tensors) {
  std::unordered_map<std::string, const TensorEntry*> seen;
  seen.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) {
    const auto [other, inserted] = seen.try_emplace(tensor.name, &tensor);
    if (inserted) continue;
    const bool same_range = other->second->begin == tensor.begin && other->second->end == tensor.end;
    return BrokenRule(same_range ? "L1" : "L2",
                      absl::StrCat(Tensor(tensor.name), ": duplicate name, at data_offsets [", other->second->begin,
                                   ", ", other->second->end, "] and [", tensor.begin, ", ", tensor.end, "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckPlace(const TensorEntry& tensor, uint64_t previous_end, bool is_first) {
  if (tensor.begin != previous_end) {
    const char* rule = is_first ? "R14" : tensor.begin > previous_end ? "R15" : "R16";
    const char* what = is_first                      ? "the first tensor"
                       : tensor.begin > previous_end ? "after a hole, it"
                                                     : "it overlaps and";
    return BrokenRule(
        rule, absl::StrCat(Tensor(tensor.name), ": ", what, " begins at ", tensor.begin, ", not at ", previous_end));
  }
  if (tensor.begin > tensor.end) {
    return BrokenRule(
        "R13", absl::StrCat(Tensor(tensor.name), ": begins at ", tensor.begin, " and ends before, at ", tensor.end));
  }
  TS_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensor.name, *tensor.dtype, tensor.shape));
  if (bytes != tensor.bytes()) {
    return BrokenRule("R17", absl::StrCat(Tensor(tensor.name), ": dtype and shape make ", bytes,
                                          " bytes, data_offsets ", tensor.bytes()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> TensorBytes(const std::string& name, const FileDtype& dtype,
                                     const std::vector<uint64_t>& shape) {
  // From the left with a check at each step, as the reference: [0, 2^63, 4] is empty, [2^63, 4, 0] overflows.
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  uint64_t bits = 1;
  const auto multiply = [&](uint64_t by) {
    if (by != 0 && bits > kMax / by) return false;
    bits *= by;
    return true;
  };
  for (const uint64_t dimension : shape) {
    if (!multiply(dimension)) {
      return BrokenRule("R18", absl::StrCat(Tensor(name), ": the product of its shape is over 64 bits at ", dimension));
    }
  }
  if (!multiply(dtype.bits)) {
    return BrokenRule("R18",
                      absl::StrCat(Tensor(name), ": ", bits, " elements of ", dtype.bits, " bits are over 64 bits"));
  }
  if (bits % 8 != 0) {
    return BrokenRule("R19", absl::StrCat(Tensor(name), ": ", bits, " bits of ", dtype.name, " are not whole bytes"));
  }
  return bits / 8;
}

absl::Status CheckEntries(std::vector<TensorEntry>& tensors, uint64_t data_bytes) {
  TS_RETURN_IF_ERROR(CheckNamesOnce(tensors));
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t end = 0;
  for (const TensorEntry& tensor : tensors) {
    TS_RETURN_IF_ERROR(CheckPlace(tensor, end, &tensor == &tensors.front()));
    end = tensor.end;
  }
  if (end < data_bytes) {
    return BrokenRule("R20", absl::StrCat(data_bytes - end, " bytes after the last tensor, which ends at ", end));
  }
  if (end > data_bytes) {
    return BrokenRule("R21", absl::StrCat("the last tensor ends at ", end, ", the data at ", data_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CheckHeaderLength(const std::string& first_bytes, uint64_t file_bytes) {
  if (file_bytes < kLengthBytes || first_bytes.size() < kLengthBytes) {
    return BrokenRule("R1", absl::StrCat("the file has ", file_bytes, " bytes, the header length alone takes 8"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{static_cast<uint8_t>(first_bytes[i])} << (8 * i);
  if (length > kHeaderBytesMax) {
    return BrokenRule("R2", absl::StrCat("a header of ", length, " bytes, at most ", kHeaderBytesMax, " are allowed"));
  }
  if (length > file_bytes - kLengthBytes) {
    return BrokenRule("R3", absl::StrCat("a header of ", length, " bytes in a file of ", file_bytes));
  }
  return length;
}

absl::StatusOr<Header> ParseHeader(const std::string& json, uint64_t data_bytes) {
  TS_ASSIGN_OR_RETURN(ParsedEntries parsed, ParseEntries(json));
  TS_RETURN_IF_ERROR(CheckEntries(parsed.tensors, data_bytes));
  return Header{std::move(parsed.tensors), std::move(parsed.metadata), kLengthBytes + json.size()};
}

absl::StatusOr<Header> ReadHeader(File& file) {
  TS_ASSIGN_OR_RETURN(const uint64_t file_bytes, file.Size());
  std::string text(std::min(file_bytes, kLengthBytes), '\0');
  TS_RETURN_IF_ERROR(ReadExactly(file, 0, std::as_writable_bytes(std::span(text))));
  const absl::StatusOr<uint64_t> length = CheckHeaderLength(text, file_bytes);
  if (!length.ok()) return Annotate(length.status(), EscapeForTerminal(file.path()));
  text.resize(*length);
  TS_RETURN_IF_ERROR(ReadExactly(file, kLengthBytes, std::as_writable_bytes(std::span(text))));
  absl::StatusOr<Header> header = ParseHeader(text, file_bytes - kLengthBytes - *length);
  if (!header.ok()) return Annotate(header.status(), EscapeForTerminal(file.path()));
  return header;
}

}  // namespace tensorshelf::safetensors
