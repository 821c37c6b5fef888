#include "tools/cli/element.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "store/dtype.h"

namespace tensorshelf::cli {
namespace {

// What the largest exponent and the sign of zero mean.
enum class Specials {
  kIeee,  // largest exponent: infinity and NaN
  kFn,    // finite up to the top: only all ones is NaN
  kFnuz,  // no infinity and no negative zero, whose code is NaN
  kNone,  // numbers alone
};

// A float of 16 bits or less: sign, exponent, mantissa.
struct SmallFloat {
  uint16_t dtype;
  int exponent_bits, mantissa_bits, bias;
  Specials specials;
  int digits;  // that tell its values apart
};
constexpr SmallFloat kSmallFloats[] = {
    {5, 5, 10, 15, Specials::kIeee, 5},   // float16
    {15, 8, 7, 127, Specials::kIeee, 4},  // bfloat16
    {23, 5, 2, 15, Specials::kIeee, 3},   // float8_e5m2
    {24, 4, 3, 7, Specials::kFn, 4},      // float8_e4m3fn
    {25, 5, 2, 16, Specials::kFnuz, 3},   // float8_e5m2fnuz
    {26, 4, 3, 8, Specials::kFnuz, 4},    // float8_e4m3fnuz
    {45, 2, 1, 1, Specials::kNone, 2},    // float4_e2m1fn_x2
};
constexpr uint16_t kFloat8E8m0 = 44;

const SmallFloat* FindSmallFloat(uint16_t dtype) {
  for (const SmallFloat& format : kSmallFloats) {
    if (format.dtype == dtype) return &format;
  }
  return nullptr;
}

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

double DecodeSmallFloat(const SmallFloat& format, uint32_t code) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const uint32_t mantissa_max = (1u << format.mantissa_bits) - 1;
  const uint32_t exponent_max = (1u << format.exponent_bits) - 1;
  const uint32_t mantissa = code & mantissa_max;
  const uint32_t exponent = (code >> format.mantissa_bits) & exponent_max;
  const bool negative = ((code >> (format.mantissa_bits + format.exponent_bits)) & 1) != 0;
  if (format.specials == Specials::kIeee && exponent == exponent_max) {
    if (mantissa != 0) return kNan;
    return negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  }
  if (format.specials == Specials::kFn && exponent == exponent_max && mantissa == mantissa_max) return kNan;
  if (format.specials == Specials::kFnuz && negative && exponent == 0 && mantissa == 0) return kNan;
  const double fraction = std::ldexp(mantissa, -format.mantissa_bits);
  // Exponent 0 is subnormal: no leading one, and the exponent of 1.
  const double value = exponent == 0 ? std::ldexp(fraction, 1 - format.bias)
                                     : std::ldexp(1 + fraction, static_cast<int>(exponent) - format.bias);
  return negative ? -value : value;
}

double DecodeE8m0(uint8_t code) {
  return code == 0xff ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, int{code} - 127);
}

uint32_t CodeOf(const ElementType& type, const std::byte* item, uint32_t part) {
  if (type.per_item == 2) return (std::to_integer<uint32_t>(*item) >> (4 * part)) & 0xf;
  return type.item_bytes == 1 ? std::to_integer<uint32_t>(*item) : Load<uint16_t>(item);
}

template <typename T>
std::string Shortest(T value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> text{};
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  return std::string(text.data(), written.ptr);
}

std::string SmallText(double value, int digits) {
  if (std::isnan(value) || std::isinf(value)) return Shortest(value);
  return absl::StrFormat("%.*g", digits, value);
}

// Real and imaginary part.
std::array<double, 2> ComplexParts(const ElementType& type, const std::byte* item) {
  if (type.item_bytes == 16) return {Load<double>(item), Load<double>(item + 8)};
  if (type.item_bytes == 8) return {Load<float>(item), Load<float>(item + 4)};
  return {DecodeSmallFloat(kSmallFloats[0], Load<uint16_t>(item)),
          DecodeSmallFloat(kSmallFloats[0], Load<uint16_t>(item + 2))};
}

std::string ComplexText(const ElementType& type, const std::byte* item) {
  const auto part_text = [&](double part) {
    if (type.item_bytes == 16) return Shortest(part);
    if (type.item_bytes == 8) return Shortest(static_cast<float>(part));
    return SmallText(part, kSmallFloats[0].digits);
  };
  const auto [real, imaginary] = ComplexParts(type, item);
  const std::string second = part_text(imaginary);
  return absl::StrCat(part_text(real), second[0] == '-' ? "" : "+", second, "j");
}

uint64_t LoadUnsigned(const ElementType& type, const std::byte* item) {
  switch (type.item_bytes) {
    case 1:
      return Load<uint8_t>(item);
    case 2:
      return Load<uint16_t>(item);
    case 4:
      return Load<uint32_t>(item);
    default:
      return Load<uint64_t>(item);
  }
}

int64_t LoadSigned(const ElementType& type, const std::byte* item) {
  switch (type.item_bytes) {
    case 1:
      return Load<int8_t>(item);
    case 2:
      return Load<int16_t>(item);
    case 4:
      return Load<int32_t>(item);
    default:
      return Load<int64_t>(item);
  }
}

}  // namespace

std::optional<ElementType> FindElementType(uint16_t dtype) {
  const Dtype* known = FindDtype(dtype);
  if (known == nullptr) return std::nullopt;
  ElementType type{dtype, ElementKind::kUnsigned, known->item_bytes, 1};
  const std::string name = known->name;
  if (name.starts_with("int")) {
    type.kind = ElementKind::kSigned;
  } else if (name.starts_with("complex")) {
    type.kind = ElementKind::kComplex;
  } else if (name == "bool") {
    type.kind = ElementKind::kBool;
  } else if (name.starts_with("float") || name.starts_with("bfloat")) {
    type.kind = ElementKind::kFloat;
  }
  if (name == "float4_e2m1fn_x2") type.per_item = 2;
  return type;
}

std::vector<uint64_t> ElementShape(const ElementType& type, const std::vector<uint64_t>& shape) {
  if (type.per_item == 1) return shape;
  if (shape.empty()) return {type.per_item};
  std::vector<uint64_t> unpacked = shape;
  unpacked.back() *= type.per_item;
  return unpacked;
}

double ElementValue(const ElementType& type, const std::byte* item, uint32_t part) {
  switch (type.kind) {
    case ElementKind::kSigned:
      return static_cast<double>(LoadSigned(type, item));
    case ElementKind::kUnsigned:
      return static_cast<double>(LoadUnsigned(type, item));
    case ElementKind::kBool:
      return Load<uint8_t>(item) != 0 ? 1 : 0;
    case ElementKind::kComplex: {
      const auto [real, imaginary] = ComplexParts(type, item);
      return std::hypot(real, imaginary);
    }
    case ElementKind::kFloat:
      break;
  }
  if (type.dtype == kFloat8E8m0) return DecodeE8m0(Load<uint8_t>(item));
  if (const SmallFloat* format = FindSmallFloat(type.dtype)) return DecodeSmallFloat(*format, CodeOf(type, item, part));
  return type.item_bytes == 4 ? Load<float>(item) : Load<double>(item);
}

std::string ElementText(const ElementType& type, const std::byte* item, uint32_t part) {
  switch (type.kind) {
    case ElementKind::kSigned:
      return absl::StrCat(LoadSigned(type, item));
    case ElementKind::kUnsigned:
      return absl::StrCat(LoadUnsigned(type, item));
    case ElementKind::kBool:
      return Load<uint8_t>(item) != 0 ? "True" : "False";
    case ElementKind::kComplex:
      return ComplexText(type, item);
    case ElementKind::kFloat:
      break;
  }
  if (type.dtype == kFloat8E8m0) return SmallText(DecodeE8m0(Load<uint8_t>(item)), 4);
  if (const SmallFloat* format = FindSmallFloat(type.dtype)) {
    return SmallText(DecodeSmallFloat(*format, CodeOf(type, item, part)), format->digits);
  }
  return type.item_bytes == 4 ? Shortest(Load<float>(item)) : Shortest(Load<double>(item));
}

}  // namespace tensorshelf::cli
