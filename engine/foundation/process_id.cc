#include "engine/foundation/process_id.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace tensorshelf {
namespace {

// Null where the kernel cannot wipe. Never unmapped: objects of static lifetime may ask at exit.
std::atomic<pid_t>* NewWipedPage() {
  const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* page = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (::madvise(page, size, MADV_WIPEONFORK) != 0) {
    ::munmap(page, size);
    return nullptr;
  }
  return new (page) std::atomic<pid_t>(0);
}

}  // namespace

pid_t ProcessId() {
  static std::atomic<pid_t>* const kept = NewWipedPage();
  if (kept == nullptr) return ::getpid();
  pid_t id = kept->load(std::memory_order_relaxed);
  if (id == 0) {
    id = ::getpid();
    kept->store(id, std::memory_order_relaxed);
  }
  return id;
}

}  // namespace tensorshelf
