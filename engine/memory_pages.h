// Page sizes and faulting pages in: what the three kinds of memory in engine/memory.h share.

#ifndef TENSORSHELF_ENGINE_MEMORY_PAGES_H_
#define TENSORSHELF_ENGINE_MEMORY_PAGES_H_

#include <cstddef>

namespace tensorshelf {

inline constexpr size_t kPageSize = 4096;
inline constexpr size_t kHugePageSize = size_t{2} << 20;
// How much is faulted in by one system call: some 2 ms, so that whoever waits for an end of it does not wait long.
inline constexpr size_t kPopulateStep = size_t{8} << 20;

// `step` is a power of two.
constexpr size_t RoundUp(size_t size, size_t step) { return (size + step - 1) & ~(step - 1); }

enum class PopulateResult {
  kDone,
  kUnsupported,  // Linux before 5.14
  kNoMemory,
};

// Faults in [data, data + size), whole pages, for writing, and changes no byte: safe while others read and write there.
PopulateResult PopulateForWriting(std::byte* data, size_t size);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_MEMORY_PAGES_H_
