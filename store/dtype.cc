#include "store/dtype.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"
#include "index/record.h"

namespace tensorshelf {
namespace {

// By number. Missing numbers are torch's quantized and 1- to 7-bit integer types, whose parameters or bytes live
// elsewhere.
constexpr Dtype kDtypes[] = {
    {0, "uint8", 1, "U8"},
    {1, "int8", 1, "I8"},
    {2, "int16", 2, "I16"},
    {3, "int32", 4, "I32"},
    {4, "int64", 8, "I64"},
    {5, "float16", 2, "F16"},
    {6, "float32", 4, "F32"},
    {7, "float64", 8, "F64"},
    {8, "complex32", 4, ""},
    {9, "complex64", 8, "C64"},
    {10, "complex128", 16, ""},
    {11, "bool", 1, "BOOL"},
    {15, "bfloat16", 2, "BF16"},
    {18, "bits1x8", 1, ""},
    {19, "bits2x4", 1, ""},
    {20, "bits4x2", 1, ""},
    {21, "bits8", 1, ""},
    {22, "bits16", 2, ""},
    {23, "float8_e5m2", 1, "F8_E5M2"},
    {24, "float8_e4m3fn", 1, "F8_E4M3"},
    {25, "float8_e5m2fnuz", 1, "F8_E5M2FNUZ"},
    {26, "float8_e4m3fnuz", 1, "F8_E4M3FNUZ"},
    {27, "uint16", 2, "U16"},
    {28, "uint32", 4, "U32"},
    {29, "uint64", 8, "U64"},
    {44, "float8_e8m0fnu", 1, "F8_E8M0"},
    {45, "float4_e2m1fn_x2", 1, "F4"},  // two values a byte; our shape counts bytes, that of a safetensors file values
};

static_assert(std::ranges::is_sorted(kDtypes, {}, &Dtype::number));

// Dimensions and byte counts stay below this everywhere: they become signed 64-bit numbers in other languages.
constexpr uint64_t kCountMax = std::numeric_limits<int64_t>::max();

}  // namespace

std::span<const Dtype> AllDtypes() { return kDtypes; }

const Dtype* FindDtype(uint16_t number) {
  const auto found = std::ranges::lower_bound(kDtypes, number, {}, &Dtype::number);
  return found != std::end(kDtypes) && found->number == number ? found : nullptr;
}

const Dtype* FindDtypeByName(const std::string& name) {
  const auto found = std::ranges::find_if(kDtypes, [&](const Dtype& dtype) { return name == dtype.name; });
  return found != std::end(kDtypes) ? found : nullptr;
}

const Dtype* FindDtypeBySafetensors(const std::string& name) {
  if (name.empty()) return nullptr;
  const auto found = std::ranges::find_if(kDtypes, [&](const Dtype& dtype) { return name == dtype.safetensors; });
  return found != std::end(kDtypes) ? found : nullptr;
}

absl::StatusOr<uint64_t> BytesOfShape(uint16_t dtype, std::span<const uint64_t> shape) {
  const Dtype* known = FindDtype(dtype);
  if (known == nullptr) return absl::InvalidArgumentError(absl::StrCat("dtype number ", dtype, " is unknown"));
  if (shape.size() > kDimensionsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a shape has at most ", kDimensionsMax, " dimensions, this one has ", shape.size()));
  }
  uint64_t bytes = known->item_bytes;
  bool empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] > kCountMax) {
      return absl::InvalidArgumentError(absl::StrCat("dimension ", i, " is ", shape[i], ", over 2^63 - 1"));
    }
    if (shape[i] == 0) {
      empty = true;
      continue;
    }
    if (bytes > kCountMax / shape[i]) {
      return absl::InvalidArgumentError(
          absl::StrCat("the shape takes more than 2^63 - 1 bytes: dimension ", i, " is ", shape[i]));
    }
    bytes *= shape[i];
  }
  return empty ? 0 : bytes;
}

}  // namespace tensorshelf
