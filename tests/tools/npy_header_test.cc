// Goal: .npy headers are read without trust and written as NumPy writes them. Method: texts, byte for byte.

#include "tools/npy/npy_header.h"

#include <gtest/gtest.h>

#include "store/dtype.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf::npy {
namespace {

std::string File(const std::string& dict, int major = 1, size_t data_bytes = 0) {
  std::string bytes = "\x93NUMPY";
  bytes.push_back(static_cast<char>(major));
  bytes.push_back('\0');
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) bytes.push_back(static_cast<char>(dict.size() >> (8 * i)));
  return bytes + dict + std::string(data_bytes, 'd');
}

TEST(NpyHeader, ReadsAllVersionsAndSpacings) {
  for (const int major : {1, 2, 3}) {
    const std::string file = File("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }   \n", major, 24);
    ASSERT_OK_AND_ASSIGN(const NpyHeader header, ParseNpyHeader(file, file.size()));
    EXPECT_EQ(header.dtype, FindDtypeByName("float32")->number);
    EXPECT_EQ(header.shape, (std::vector<uint64_t>{3, 2}));
    EXPECT_EQ(header.data_offset, file.size() - 24);
  }
  const std::string scalar = File("{\"shape\":(),\"fortran_order\":True,\"descr\":\"|b1\"}", 1, 1);
  ASSERT_OK_AND_ASSIGN(const NpyHeader header, ParseNpyHeader(scalar, scalar.size()));
  EXPECT_TRUE(header.shape.empty());
}

TEST(NpyHeader, RefusesAndSaysWhy) {
  const std::pair<std::string, const char*> kBroken[] = {
      {"", "magic"},
      {"\x93NUMPX\1\0\0\0\0\0", "magic"},
      {File("{}", 4), "version"},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)"), "closing brace"},
      {File("{'descr': '<f4', 'fortran_order': False}"), "missing"},
      {File("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (0,)}"), "repeated"},
      {File("{'descr': '<f4', 'fortran_order': 0, 'shape': (0,)}"), "truth value"},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "64-bit number"},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}"), "64-bit number"},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,4)}"), ""},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)} x"), "after the dictionary"},
      {File("{'descr': '|O', 'fortran_order': False, 'shape': (0,)}"), "pickle"},
      {File("{'descr': '>f4', 'fortran_order': False, 'shape': (0,)}"), "big-endian"},
      {File("{'descr': '<U8', 'fortran_order': False, 'shape': (0,)}"), "<U8"},
      {File("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,)}"), "records"},
      {File("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}", 1, 16), "Fortran"},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 1, 7), "8 bytes, the file has 7"},
      {File("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 1, 9), "8 bytes, the file has 9"},
  };
  for (const auto& [file, message] : kBroken) {
    EXPECT_FAILS(ParseNpyHeader(file, file.size()).status(), absl::StatusCode::kInvalidArgument, message);
  }
  const std::string good = File("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 1, 8);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(ParseNpyHeader(good.substr(0, length), length).ok()) << length;
  }
}

TEST(NpyHeader, WritesAsNumPyDoes) {
  ASSERT_OK_AND_ASSIGN(const std::string header, FormatNpyHeader(FindDtypeByName("float32")->number, {3, 2}));
  EXPECT_EQ(header, std::string("\x93NUMPY\1\0v\0", 10) +
                        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }" + std::string(58, ' ') + "\n");
  ASSERT_OK_AND_ASSIGN(const std::string scalar, FormatNpyHeader(FindDtypeByName("bool")->number, {}));
  EXPECT_NE(scalar.find("'|b1', 'fortran_order': False, 'shape': (), }"), std::string::npos);
  EXPECT_EQ(scalar.size() % 64, 0u);
  EXPECT_FAILS(FormatNpyHeader(FindDtypeByName("bfloat16")->number, {1}).status(), absl::StatusCode::kInvalidArgument,
               "bfloat16");
}

}  // namespace
}  // namespace tensorshelf::npy
