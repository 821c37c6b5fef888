#include "python/aio/validation.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "engine/disk.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kStep = uint64_t{1} << 20;

// Always through the page cache: the transfer itself went past it.
absl::Status ReadCached(File& file, uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    const int64_t moved = file.PReadCached(offset, to);
    if (moved == -EINTR) continue;
    if (moved < 0) return IoError(static_cast<int>(-moved), absl::StrCat("reading again at ", offset));
    if (moved == 0) return absl::DataLossError(absl::StrCat("the file ends at ", offset));
    offset += static_cast<uint64_t>(moved);
    to = to.subspan(static_cast<size_t>(moved));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Sum128> SumsOf(std::span<const std::byte> bytes) {
  std::vector<Sum128> sums;
  for (; !bytes.empty(); bytes = bytes.subspan(std::min<size_t>(kStep, bytes.size()))) {
    sums.push_back(Hash128(bytes.first(std::min<size_t>(kStep, bytes.size()))));
  }
  return sums;
}

absl::Status CompareWithFile(ExternalFiles& files, const std::string& path, uint64_t offset, uint64_t length,
                             const std::vector<Sum128>& sums) {
  TS_ASSIGN_OR_RETURN(const ExternalFiles::OpenedFile opened, files.ForReading(path));
  std::vector<std::byte> buffer(std::min(kStep, length));
  for (uint64_t at = 0; at < length; at += kStep) {
    const std::span<std::byte> part(buffer.data(), std::min(kStep, length - at));
    TS_RETURN_IF_ERROR(ReadCached(*opened.file, offset + at, part));
    if (Hash128(part) != sums[at / kStep]) {
      return WithErrorNumber(absl::DataLossError(absl::StrCat("validation: the ", part.size(), " bytes at ",
                                                              offset + at, " of the file are not those of the tensor")),
                             EIO);
    }
  }
  return absl::OkStatus();
}

}  // namespace tensorshelf
