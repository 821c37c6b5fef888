// One page-cache piece of a page at a time.
//
// The pieces of kPageCache blocks lie within one page, and several may share it. File::PWrite changes exactly the bytes
// it is given, so no neighbour is lost by a read-modify-write of ours. But it may choose the direct descriptor for a
// piece that happens to be aligned to sectors, beside a buffered write of the page's other bytes (engine/plan.h says
// what the kernel makes of that). One after the other is safe: a direct write writes back and drops the cached page
// first, a buffered one fetches what is on the device.

#ifndef TENSORSHELF_ENGINE_PAGE_ORDER_H_
#define TENSORSHELF_ENGINE_PAGE_ORDER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/synchronization/mutex.h"
#include "engine/disk.h"
#include "engine/plan.h"

namespace tensorshelf {

// Thread-safe. The mutexes are leaves: held during one transfer, nothing else is locked inside.
class PageOrder {
 public:
  // By path, not by File: two open files may be the same one.
  absl::Mutex& MutexOf(const File& file, uint64_t offset) {
    return mutexes_[(std::hash<std::string>()(file.path()) + offset / kUnitSize) % mutexes_.size()];
  }

 private:
  std::array<absl::Mutex, 64> mutexes_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_PAGE_ORDER_H_
