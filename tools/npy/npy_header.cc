#include "tools/npy/npy_header.h"

#include <algorithm>
#include <optional>
#include <span>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/dtype.h"
#include "store/name.h"

namespace tensorshelf::npy {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicBytes = 6;

// NumPy's name of each element type that both sides have.
struct Descr {
  const char* descr;
  const char* dtype;
};
constexpr Descr kDescrs[] = {
    {"|b1", "bool"},    {"|u1", "uint8"},   {"|i1", "int8"},      {"<i2", "int16"},       {"<u2", "uint16"},
    {"<i4", "int32"},   {"<u4", "uint32"},  {"<i8", "int64"},     {"<u8", "uint64"},      {"<f2", "float16"},
    {"<f4", "float32"}, {"<f8", "float64"}, {"<c8", "complex64"}, {"<c16", "complex128"},
};

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("not a .npy file: ", what));
}

// The header's Python dictionary: strings, True, False and tuples of integers, in any order and spacing.
class DictReader {
 public:
  explicit DictReader(const std::string& text) : text_(text) {}

  std::optional<std::string> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<uint64_t>> shape;

  absl::Status Read() {
    if (!Take('{')) return Wrong("no dictionary");
    while (!Take('}')) {
      std::string key;
      TS_RETURN_IF_ERROR(ReadString(&key));
      if (!Take(':')) return Wrong("no colon");
      TS_RETURN_IF_ERROR(ReadValue(key));
      if (Take(',')) continue;
      if (!Take('}')) return Wrong("no comma or closing brace");
      break;
    }
    SkipSpace();
    if (at_ != text_.size()) return Wrong("text after the dictionary");
    if (!descr || !fortran_order || !shape) return Wrong("descr, fortran_order or shape is missing");
    return absl::OkStatus();
  }

 private:
  absl::Status Wrong(const char* what) const { return Bad(absl::StrCat(what, " at byte ", at_, " of its header")); }
  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool Take(char c) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool TakeWord(const std::string& word) {
    SkipSpace();
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }
  absl::Status ReadString(std::string* to) {
    const char quote = Take('\'') ? '\'' : Take('"') ? '"' : '\0';
    if (quote == '\0') return Wrong("no string");
    const size_t end = text_.find(quote, at_);
    if (end == std::string::npos) return Wrong("a string without end");
    *to = text_.substr(at_, end - at_);
    at_ = end + 1;
    return absl::OkStatus();
  }
  absl::Status ReadValue(const std::string& key) {
    if (key == "descr" && !descr) {
      if (Take('[')) return absl::InvalidArgumentError("a .npy file of records (structured dtype) cannot be imported");
      return ReadString(&descr.emplace());
    }
    if (key == "fortran_order" && !fortran_order) {
      if (TakeWord("True")) return fortran_order = true, absl::OkStatus();
      if (TakeWord("False")) return fortran_order = false, absl::OkStatus();
      return Wrong("no truth value");
    }
    if (key == "shape" && !shape) return ReadShape(&shape.emplace());
    return Wrong("an unknown or repeated key");
  }
  absl::Status ReadShape(std::vector<uint64_t>* to) {
    if (!Take('(')) return Wrong("no tuple");
    while (!Take(')')) {
      SkipSpace();
      size_t end = at_;
      while (end < text_.size() && text_[end] >= '0' && text_[end] <= '9') ++end;
      uint64_t number = 0;
      if (end == at_ || !absl::SimpleAtoi(text_.substr(at_, end - at_), &number)) return Wrong("no 64-bit number");
      to->push_back(number);
      at_ = end;
      if (Take(',')) continue;
      if (!Take(')')) return Wrong("no comma or closing parenthesis");
      break;
    }
    return absl::OkStatus();
  }

  const std::string& text_;
  size_t at_ = 0;
};

absl::StatusOr<uint16_t> DtypeOf(const std::string& descr) {
  for (const Descr& known : kDescrs) {
    if (descr == known.descr) return FindDtypeByName(known.dtype)->number;
  }
  const std::string shown = EscapeForTerminal(descr);
  if (descr.find('O') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("element type '", shown, "' is Python objects (a pickle), which is never read"));
  }
  if (!descr.empty() && descr[0] == '>') {
    return absl::InvalidArgumentError(absl::StrCat("element type '", shown, "' is big-endian"));
  }
  return absl::InvalidArgumentError(absl::StrCat("element type '", shown, "' is not one that a shelf keeps"));
}

// Length of the preamble before the dictionary, and of the dictionary.
struct Lengths {
  size_t preamble = 0;
  uint64_t header = 0;
};
absl::StatusOr<Lengths> ReadLengths(const std::string& bytes) {
  if (bytes.size() < 10 || bytes.compare(0, kMagicBytes, kMagic, kMagicBytes) != 0) return Bad("no magic");
  const auto byte = [&](size_t i) { return uint64_t{static_cast<uint8_t>(bytes[i])}; };
  const uint64_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0) return Bad(absl::StrCat("version ", major, ".", minor));
  if (major == 1) return Lengths{10, byte(8) | byte(9) << 8};
  if (bytes.size() < 12) return Bad("cut after the version");
  return Lengths{12, byte(8) | byte(9) << 8 | byte(10) << 16 | byte(11) << 24};
}

}  // namespace

absl::StatusOr<NpyHeader> ParseNpyHeader(const std::string& first_bytes, uint64_t file_bytes) {
  TS_ASSIGN_OR_RETURN(const Lengths lengths, ReadLengths(first_bytes));
  const uint64_t data_offset = lengths.preamble + lengths.header;
  if (lengths.header > kHeaderBytesMax || data_offset > file_bytes || data_offset > first_bytes.size()) {
    return Bad(absl::StrCat("a header of ", lengths.header, " bytes in a file of ", file_bytes));
  }
  const std::string text = first_bytes.substr(lengths.preamble, lengths.header);
  DictReader dict(text);
  TS_RETURN_IF_ERROR(dict.Read());
  TS_ASSIGN_OR_RETURN(const uint16_t dtype, DtypeOf(*dict.descr));
  if (*dict.fortran_order && dict.shape->size() > 1) {
    return absl::InvalidArgumentError("the array is in Fortran order; save numpy.ascontiguousarray of it");
  }
  TS_ASSIGN_OR_RETURN(const uint64_t bytes, BytesOfShape(dtype, *dict.shape));
  if (file_bytes - data_offset != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype and shape make ", bytes, " bytes, the file has ", file_bytes - data_offset, " of data"));
  }
  return NpyHeader{dtype, *std::move(dict.shape), data_offset, bytes};
}

absl::StatusOr<NpyHeader> ReadNpyHeader(File& file) {
  TS_ASSIGN_OR_RETURN(const uint64_t file_bytes, file.Size());
  std::string first(std::min<uint64_t>(file_bytes, 12), '\0');
  TS_RETURN_IF_ERROR(ReadExactly(file, 0, std::as_writable_bytes(std::span(first))));
  const absl::StatusOr<Lengths> lengths = ReadLengths(first);
  if (!lengths.ok()) return Annotate(lengths.status(), EscapeForTerminal(file.path()));
  first.resize(std::min(file_bytes, lengths->preamble + std::min(lengths->header, kHeaderBytesMax)));
  TS_RETURN_IF_ERROR(ReadExactly(file, 0, std::as_writable_bytes(std::span(first))));
  absl::StatusOr<NpyHeader> header = ParseNpyHeader(first, file_bytes);
  if (!header.ok()) return Annotate(header.status(), EscapeForTerminal(file.path()));
  return header;
}

absl::StatusOr<std::string> FormatNpyHeader(uint16_t dtype, const std::vector<uint64_t>& shape) {
  const Dtype* known = FindDtype(dtype);
  const Descr* descr = std::find_if(std::begin(kDescrs), std::end(kDescrs), [&](const Descr& d) {
    return known != nullptr && std::string(d.dtype) == known->name;
  });
  if (descr == std::end(kDescrs)) {
    return absl::InvalidArgumentError(
        absl::StrCat("NumPy has no element type for ", known != nullptr ? known->name : absl::StrCat("dtype ", dtype)));
  }
  std::string text = absl::StrCat("{'descr': '", descr->descr, "', 'fortran_order': False, 'shape': (");
  for (size_t i = 0; i < shape.size(); ++i)
    absl::StrAppend(&text, i == 0 ? "" : " ", shape[i], i + 1 < shape.size() || i == 0 ? "," : "");
  text.append("), }");
  // NumPy leaves room for the first dimension to grow to 21 digits in place.
  if (!shape.empty()) text.append(21 - absl::StrCat(shape[0]).size(), ' ');
  // 65536 dimensions would be needed to outgrow version 1; the store allows 64.
  const size_t unpadded = 10 + text.size() + 1;
  text.append(64 - unpadded % 64, ' ');  // 64 more where it would fit already, as NumPy does
  text.push_back('\n');
  std::string bytes(kMagic, kMagicBytes);
  bytes.append({'\1', '\0', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)});
  return bytes + text;
}

}  // namespace tensorshelf::npy
