// Goal: numbers on disk keep their meaning for ever, and no shape overflows. Method: the whole table written out a
// second time, and shapes at the limits.

#include "store/dtype.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

TEST(Dtype, NumbersNeverChange) {
  // number, name, bytes, safetensors; as in torch's c10/core/ScalarType.h.
  const std::vector<std::tuple<int, std::string, int, std::string>> expected = {
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
      {45, "float4_e2m1fn_x2", 1, "F4"},
  };
  std::vector<std::tuple<int, std::string, int, std::string>> table;
  for (const Dtype& dtype : AllDtypes())
    table.emplace_back(dtype.number, dtype.name, dtype.item_bytes, dtype.safetensors);
  EXPECT_EQ(table, expected);
}

TEST(Dtype, LookupsAgree) {
  std::set<uint16_t> known;
  for (const Dtype& dtype : AllDtypes()) {
    known.insert(dtype.number);
    EXPECT_EQ(FindDtype(dtype.number), &dtype);
    EXPECT_EQ(FindDtypeByName(dtype.name), &dtype);
    if (*dtype.safetensors != '\0') {
      EXPECT_EQ(FindDtypeBySafetensors(dtype.safetensors), &dtype);
    }
  }
  for (int number = 0; number <= 0xffff; ++number) {
    EXPECT_EQ(FindDtype(static_cast<uint16_t>(number)) != nullptr, known.contains(static_cast<uint16_t>(number)));
  }
  EXPECT_EQ(FindDtypeByName("qint8"), nullptr);
  EXPECT_EQ(FindDtypeByName(""), nullptr);
  EXPECT_EQ(FindDtypeBySafetensors(""), nullptr);
  EXPECT_EQ(FindDtypeBySafetensors("F6_E2M3"), nullptr);
}

absl::StatusOr<uint64_t> Bytes(uint16_t dtype, std::vector<uint64_t> shape) { return BytesOfShape(dtype, shape); }

TEST(BytesOfShape, OrdinaryShapes) {
  const auto expect = [](uint16_t dtype, std::vector<uint64_t> shape, uint64_t bytes) {
    ASSERT_OK_AND_ASSIGN(const uint64_t got, Bytes(dtype, std::move(shape)));
    EXPECT_EQ(got, bytes);
  };
  expect(6, {}, 4);
  expect(6, {0}, 0);
  expect(15, {3, 5, 7}, 210);
  expect(10, {1, 0, 100}, 0);
  expect(0, std::vector<uint64_t>(64, 1), 1);
  expect(0, {(uint64_t{1} << 63) - 1}, (uint64_t{1} << 63) - 1);
  expect(6, {(uint64_t{1} << 61) - 1}, (uint64_t{1} << 63) - 4);
}

TEST(BytesOfShape, WhatCannotBe) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_FAILS(Bytes(12, {1}), invalid, "dtype number 12");
  EXPECT_FAILS(Bytes(0, std::vector<uint64_t>(65, 1)), invalid, "65");
  EXPECT_FAILS(Bytes(0, {uint64_t{1} << 63}), invalid, "dimension 0");
  EXPECT_FAILS(Bytes(6, {uint64_t{1} << 61}), invalid, "more than 2^63 - 1 bytes");
  EXPECT_FAILS(Bytes(0, {uint64_t{1} << 32, uint64_t{1} << 32}), invalid, "dimension 1");
  EXPECT_FAILS(Bytes(0, {0, uint64_t{1} << 32, uint64_t{1} << 32}), invalid, "dimension 2");
}

}  // namespace
}  // namespace tensorshelf
