#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/disk.h"
#include "engine/foundation/status_macros.h"
#include "engine/memory.h"
#include "engine/memory_pages.h"

namespace tensorshelf {
namespace {

// A line of a file under /sys, empty where it cannot be read: then the feature that it speaks of is not there.
std::string ReadSysLine(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char line[128];
  const ssize_t length = ::read(fd, line, sizeof line);
  ::close(fd);
  return std::string(line, length < 0 ? 0 : static_cast<size_t>(length));
}

uint64_t FreeHugetlbBytes() {
  const std::string line = ReadSysLine("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  uint64_t page_count = 0;
  std::from_chars(line.data(), line.data() + line.size(), page_count);
  return page_count * kHugePageSize;
}

bool TransparentHugePagesOff() {
  const std::string line = ReadSysLine("/sys/kernel/mm/transparent_hugepage/enabled");
  return line.empty() || line.find("[never]") != std::string::npos;
}

std::byte* MapAnonymous(size_t size, int extra_flags) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);
  return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
}

// Reserves its pages at once, so that no later touch can meet an empty pool and die of SIGBUS.
std::byte* MapHugetlb(size_t size) {
  constexpr int kLog2HugePageSize = 21;
  return MapAnonymous(size, MAP_HUGETLB | (kLog2HugePageSize << MAP_HUGE_SHIFT));
}

// On a 2 MiB boundary: more is mapped than needed and the ends are cut off.
std::byte* MapHugeAligned(size_t size) {
  std::byte* data = MapAnonymous(size + kHugePageSize, 0);
  if (data == nullptr) return nullptr;
  const size_t head = (kHugePageSize - reinterpret_cast<uintptr_t>(data) % kHugePageSize) % kHugePageSize;
  // Cutting splits no mapping in two, so it needs no memory and cannot fail.
  if (head != 0) TS_CHECK(::munmap(data, head) == 0);
  TS_CHECK(::munmap(data + head + size, kHugePageSize - head) == 0);
  return data + head;
}

// With MLOCK_ONFAULT (Linux 4.4), or the lock itself would fault in everything, here and now.
bool LockPages(std::byte* data, size_t size) { return ::mlock2(data, size, MLOCK_ONFAULT) == 0; }

}  // namespace

PopulateResult PopulateForWriting(std::byte* data, size_t size) {
  while (::madvise(data, size, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    return errno == EINVAL ? PopulateResult::kUnsupported : PopulateResult::kNoMemory;
  }
  return PopulateResult::kDone;
}

namespace {

absl::Status Populate(std::byte* data, size_t size) {
  for (size_t done = 0; done < size;) {
    const size_t step = std::min(kPopulateStep, size - done);
    switch (PopulateForWriting(data + done, step)) {
      case PopulateResult::kDone:
        break;
      case PopulateResult::kNoMemory:
        return absl::ResourceExhaustedError(absl::StrCat("no memory to fault in ", size, " bytes"));
      case PopulateResult::kUnsupported:
        // Before Linux 5.14. The pages are fresh and nobody else's: zero is what they hold.
        for (size_t at = done; at < done + step; at += kPageSize) {
          *reinterpret_cast<volatile std::byte*>(data + at) = std::byte{0};
        }
        break;
    }
    done += step;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MappedRegion> MappedRegion::Map(size_t size, const RegionOptions& options) {
  MappedRegion region;
  if (size == 0) return region;
  const bool wants_huge = options.huge_pages && size >= kHugePageSize;
  size = RoundUp(size, wants_huge ? kHugePageSize : kPageSize);

  // Private hugetlb pages only where a fork cannot share them: when the parent writes to a shared one and the pool is
  // empty, the kernel takes the page from the child, which dies at its next look.
  if (wants_huge && options.dont_fork && FreeHugetlbBytes() >= size) {
    region.data_ = MapHugetlb(size);
    region.huge_pages_ = region.data_ != nullptr;
  }
  if (region.data_ == nullptr) region.data_ = wants_huge ? MapHugeAligned(size) : MapAnonymous(size, 0);
  if (region.data_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for a mapping of ", size, " bytes"));
  }
  region.size_ = size;
  if (wants_huge && !region.huge_pages_) {
    region.huge_pages_ = ::madvise(region.data_, size, MADV_HUGEPAGE) == 0 && !TransparentHugePagesOff();
  }
  if (options.dont_fork) {
    if (::madvise(region.data_, size, MADV_DONTFORK) != 0) return IoError(errno, "madvise MADV_DONTFORK");
    region.unforked_process_ = ::getpid();
  }
  if (options.page_locked) region.page_locked_ = LockPages(region.data_, size);
  if (options.populate) TS_RETURN_IF_ERROR(Populate(region.data_, size));
  return region;
}

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      page_locked_(std::exchange(other.page_locked_, false)),
      huge_pages_(std::exchange(other.huge_pages_, false)),
      unforked_process_(std::exchange(other.unforked_process_, 0)) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  MappedRegion taken(std::move(other));
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(page_locked_, taken.page_locked_);
  std::swap(huge_pages_, taken.huge_pages_);
  std::swap(unforked_process_, taken.unforked_process_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (data_ == nullptr) return;
  // In a forked child the addresses of a MADV_DONTFORK region are free, or something else by now.
  if (unforked_process_ != 0 && unforked_process_ != ::getpid()) return;
  // May fail when cutting this out of a larger merged mapping would pass vm.max_map_count; the memory stays mapped
  // then.
  ::munmap(data_, size_);
}

}  // namespace tensorshelf
