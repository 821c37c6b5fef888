// The committed shelf of format version 1, tests/store/golden/v1: its content, and how its data file is kept as text.
//
// The data file is 10 MiB of which a few pages are not zero; those are kept in `pages.txt`, a line each: byte offset,
// colon, 8192 hexadecimal digits.

#ifndef TENSORSHELF_TESTS_STORE_GOLDEN_SHELF_H_
#define TENSORSHELF_TESTS_STORE_GOLDEN_SHELF_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tensorshelf {

inline constexpr uint64_t kGoldenCapacity = uint64_t{8} << 20;
inline constexpr uint64_t kGoldenFileBytes = uint64_t{10} << 20;

struct GoldenObject {
  uint16_t dtype = 0;  // 0 and no shape: bytes, unless `tensor`
  bool tensor = false;
  std::vector<uint64_t> shape;
  std::string bytes;
  std::map<std::string, std::string> metadata;
};

// A byte pattern that needs no library to repeat: byte i is (seed + i * i / 7) mod 251.
inline std::string Pattern(size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>((seed + static_cast<uint64_t>(i) * i / 7) % 251);
  return bytes;
}

inline std::map<std::string, GoldenObject> GoldenObjects() {
  std::map<std::string, GoldenObject> objects;
  objects["scalar"] = {7, true, {}, Pattern(8, 1), {}};                            // inline
  objects["small/f32"] = {6, true, {2, 3}, Pattern(24, 2), {{"unit", "volt"}}};    // inline, metadata
  objects["bytes"] = {0, false, {}, Pattern(5000, 3), {}};                         // extents, no trailer
  objects["u8"] = {0, true, {70000}, Pattern(70000, 4), {{"a", "1"}, {"b", ""}}};  // two blocks, trailer
  objects["zeros"] = {0, true, {5, 1 << 20}, std::string(5 << 20, '\0'), {}};      // sums in rows
  objects["empty"] = {15, true, {0, 4}, "", {}};
  objects["name with \"quotes\" \xc3\xa9"] = {0, false, {}, Pattern(100, 5), {}};
  objects["u8-clone"] = objects["u8"];  // shares the object
  return objects;
}

}  // namespace tensorshelf

#endif  // TENSORSHELF_TESTS_STORE_GOLDEN_SHELF_H_
