#include "engine/linux_direct_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace tensorshelf {
namespace {

constexpr uint32_t kCautious = 4096;  // works on every device with blocks of at most 4 KiB
constexpr uint32_t kLargest = 65536;  // beyond this nothing above is prepared to align

constexpr IoAlignment kBuffered{.memory = 1, .offset = 1, .direct = false};

// statx(2) with STATX_DIOALIGN: Linux 6.1 on ext4, XFS, f2fs and block devices. Elsewhere the mask bit stays clear and
// the cautious values are tried.
IoAlignment AskKernel(int fd, bool* answered) {
  *answered = false;
  IoAlignment alignment{.memory = kCautious, .offset = kCautious, .direct = true};
#ifdef STATX_DIOALIGN
  struct statx information;
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &information) != 0) return alignment;
  if ((information.stx_mask & STATX_DIOALIGN) == 0) return alignment;
  *answered = true;
  // Zero says that this one file takes no direct I/O (encrypted, verity, inline data).
  if (information.stx_dio_offset_align == 0 || information.stx_dio_mem_align == 0) {
    alignment.direct = false;
  } else {
    alignment.memory = information.stx_dio_mem_align;
    alignment.offset = information.stx_dio_offset_align;
  }
#endif
  return alignment;
}

bool Usable(const IoAlignment& alignment) {
  return std::has_single_bit(alignment.memory) && std::has_single_bit(alignment.offset) &&
         alignment.memory <= kLargest && alignment.offset <= kLargest;
}

bool Refused(ssize_t result) { return result < 0 && (errno == EINVAL || errno == EOPNOTSUPP); }

// Only a refusal of the kind of transfer counts. An EIO or ENOSPC here would also meet the first real transfer, which
// has a caller to tell.
bool TransfersWork(int fd, const IoAlignment& alignment, bool may_write) {
  struct AlignedFree {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, AlignedFree> memory(std::aligned_alloc(kLargest, 2 * kLargest));
  if (memory == nullptr) return true;
  // No better aligned than it has to be, so that a kernel which promises too much is found out.
  auto* block = static_cast<std::byte*>(memory.get()) + (alignment.memory < kLargest ? alignment.memory : 0);
  bool works = true;
  if (may_write) {
    std::memset(block, 0, alignment.offset);
    works = !Refused(::pwrite(fd, block, alignment.offset, 0));
  }
  works = works && !Refused(::pread(fd, block, alignment.offset, 0));
  return works;
}

}  // namespace

IoAlignment ProbeDirect(int fd, bool may_write) {
  bool answered = false;
  const IoAlignment said = AskKernel(fd, &answered);
  if (!said.direct) return kBuffered;
  const IoAlignment cautious{
      .memory = std::max(said.memory, kCautious), .offset = std::max(said.offset, kCautious), .direct = true};
  for (const IoAlignment& alignment : {said, cautious}) {
    if (!Usable(alignment) || !TransfersWork(fd, alignment, may_write)) continue;
    return alignment;
  }
  return kBuffered;
}

IoAlignment AskDirect(int fd) {
  bool answered = false;
  const IoAlignment said = AskKernel(fd, &answered);
  if (!answered) return ProbeDirect(fd, /*may_write=*/false);
  return said.direct && Usable(said) ? said : kBuffered;
}

}  // namespace tensorshelf
