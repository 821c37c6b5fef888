// How much memory a tier may take without harm to the rest of the machine.

#ifndef TENSORSHELF_STORE_MEMORY_BUDGET_H_
#define TENSORSHELF_STORE_MEMORY_BUDGET_H_

#include <cstdint>
#include <string>

namespace tensorshelf {

// Where the kernel's files are looked for.
struct MemoryFiles {
  std::string proc = "/proc";
  std::string cgroup = "/sys/fs/cgroup";
};

// Bytes that this process could still take: the least of MemAvailable and, for its cgroup (version 2) and each one
// above, memory.max - memory.current (file pages, which the kernel gives up when asked, are not counted as taken). A
// limit that cannot be read does not count; 0 when none can.
uint64_t AvailableMemoryBytes(const MemoryFiles& files = {});

// The size that memory="auto" means: a quarter of AvailableMemoryBytes, in whole 2 MiB, at most 64 GiB; 0 (no tier)
// when that comes to less than 64 MiB. Read once, when asked: what others take later is not followed.
uint64_t AutoMemoryBytes(const MemoryFiles& files = {});

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_MEMORY_BUDGET_H_
