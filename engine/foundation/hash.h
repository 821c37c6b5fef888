// XXH3 as the format uses it: 64 bits for control structures ("H" in store/FORMAT.md), 128 bits for data blocks.
//
// Both call libxxhash through its run-time dispatcher, so that a generic build still hashes with AVX2 or AVX-512.
// Source: xxHash, https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_HASH_H_
#define TENSORSHELF_ENGINE_FOUNDATION_HASH_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace tensorshelf {

// A 128-bit XXH3 value. `low` is the block sum that the format stores; both halves feed the fingerprint.
struct Sum128 {
  uint64_t low = 0;
  uint64_t high = 0;

  friend bool operator==(const Sum128&, const Sum128&) = default;
};

// XXH3-64, seed 0.
uint64_t Hash64(std::span<const std::byte> bytes);

// XXH3-128, seed 0.
Sum128 Hash128(std::span<const std::byte> bytes);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_HASH_H_
