// How many threads can run at once.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_PROCESSOR_COUNT_H_
#define TENSORSHELF_ENGINE_FOUNDATION_PROCESSOR_COUNT_H_

#include <algorithm>
#include <cstddef>
#include <thread>

namespace tensorshelf {

// At least 1. Asked once: glibc reads a file of sysfs each time, which takes longer than copying 64 KiB.
inline size_t ProcessorCount() {
  static const size_t count = std::max(1u, std::thread::hardware_concurrency());
  return count;
}

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_PROCESSOR_COUNT_H_
