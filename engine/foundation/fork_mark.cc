#include "engine/foundation/fork_mark.h"

#include <sys/mman.h>

#include <new>

namespace tensorshelf {
namespace {

size_t PageBytes() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

}  // namespace

ForkMark::ForkMark() : process_(::getpid()) {
  void* page = ::mmap(nullptr, PageBytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  if (::madvise(page, PageBytes(), MADV_WIPEONFORK) != 0) {
    ::munmap(page, PageBytes());
    return;
  }
  page_ = new (page) std::atomic<uint32_t>(1);
}

ForkMark::~ForkMark() {
  if (page_ != nullptr) ::munmap(page_, PageBytes());
}

}  // namespace tensorshelf
