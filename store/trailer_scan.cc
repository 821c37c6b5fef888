#include "store/trailer_scan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/status_macros.h"
#include "store/layout.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kWindowBytes = uint64_t{8} << 20;

// Memory that a direct read takes as it is.
class UnitBuffer {
 public:
  std::span<std::byte> Get(uint64_t bytes) {
    if (memory_.size() < bytes + kUnitBytes) memory_.resize(bytes + kUnitBytes);
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    const uintptr_t skip = (kUnitBytes - address % kUnitBytes) % kUnitBytes;
    return std::span(memory_).subspan(skip, bytes);
  }

 private:
  std::vector<std::byte> memory_;
};

}  // namespace

absl::StatusOr<std::vector<Trailer>> ScanTrailers(File& file, const FileRow& row, const Uuid& store_uuid,
                                                  const std::function<void(uint64_t bytes_done)>& progress) {
  std::vector<Trailer> trailers;
  UnitBuffer window_memory, large_memory;
  // Behind a whole trailer the search goes on; its own units hold no other.
  uint64_t next = row.data_begin;
  for (uint64_t begin = row.data_begin; begin < row.data_end; begin += kWindowBytes) {
    const std::span<std::byte> window = window_memory.Get(std::min(kWindowBytes, row.data_end - begin));
    TS_RETURN_IF_ERROR(ReadExactly(file, begin, window));
    for (uint64_t at = std::max(begin, next); at < begin + window.size(); at += kUnitBytes) {
      std::span<const std::byte> bytes = window.subspan(at - begin);
      if (!LooksLikeTrailer(bytes)) continue;
      const auto header = DecodeTrailerHeader(bytes);
      if (!header.ok()) continue;
      const uint64_t length = uint64_t{header->total_units} * kUnitBytes;
      if (length > row.data_end - at) continue;
      if (length > bytes.size()) {
        const std::span<std::byte> whole = large_memory.Get(length);
        TS_RETURN_IF_ERROR(ReadExactly(file, at, whole));
        bytes = whole;
      }
      auto trailer = DecodeTrailer(bytes, store_uuid, row.file_id, at / kUnitBytes);
      if (!trailer.ok()) continue;
      trailers.push_back(*std::move(trailer));
      next = at + length;
      at = next - kUnitBytes;
    }
    if (progress) progress(begin - row.data_begin + window.size());
  }
  return trailers;
}

absl::Status VerifyStoredBytes(const ObjectRecord& record, std::span<const uint64_t> sums,
                               const std::vector<FoundFile>& files) {
  const uint64_t block = record.block_bytes();
  if (sums.size() != record.sums_count()) {
    return absl::DataLossError(absl::StrCat("it has ", sums.size(), " checksums, not ", record.sums_count()));
  }
  const uint64_t piece_bytes = std::max(kWindowBytes / block, uint64_t{1}) * block;
  UnitBuffer memory;
  for (uint64_t offset = 0; offset < record.stored_bytes; offset += piece_bytes) {
    const uint64_t length = std::min(piece_bytes, record.stored_bytes - offset);
    const std::span<std::byte> piece = memory.Get(length);
    for (const FileRun& run : RunsOf(record, offset, length)) {
      const auto file =
          std::ranges::find(files, run.file_id, [](const FoundFile& found) { return found.label.file_id; });
      if (file == files.end()) return absl::DataLossError(absl::StrCat("data file ", run.file_id, " is not there"));
      TS_RETURN_IF_ERROR(
          ReadExactly(*file->file->file, run.file_offset, piece.subspan(run.object_offset - offset, run.length)));
    }
    for (uint64_t at = 0; at < length; at += block) {
      const uint64_t number = (offset + at) / block;
      if (Hash128(piece.subspan(at, std::min(block, length - at))).low == sums[number]) continue;
      return absl::DataLossError(absl::StrCat("block ", number, " does not match its checksum"));
    }
  }
  return absl::OkStatus();
}

}  // namespace tensorshelf
