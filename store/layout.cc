#include "store/layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

// Appends the runs of [offset, offset + length) of one column, whose byte 0 of the range is the object's
// `object_offset`.
void AppendColumnRuns(const std::vector<Extent>& extents, uint64_t offset, uint64_t length, uint64_t object_offset,
                      std::vector<FileRun>& runs) {
  uint64_t extent_begin = 0;
  for (const Extent& extent : extents) {
    const uint64_t extent_end = extent_begin + extent.bytes();
    if (offset < extent_end && length > 0) {
      const uint64_t taken = std::min(length, extent_end - offset);
      const uint64_t file_offset = extent.offset() + (offset - extent_begin);
      const bool joins = !runs.empty() && runs.back().file_id == extent.file_id &&
                         runs.back().file_offset + runs.back().length == file_offset &&
                         runs.back().object_offset + runs.back().length == object_offset;
      if (joins) {
        runs.back().length += taken;
      } else {
        runs.push_back({extent.file_id, file_offset, object_offset, taken});
      }
      offset += taken;
      object_offset += taken;
      length -= taken;
    }
    extent_begin = extent_end;
  }
  TS_CHECK(length == 0);
}

}  // namespace

uint64_t ColumnBytes(uint64_t stored_bytes, uint8_t stripe_log2, uint32_t columns, uint32_t column) {
  if (stripe_log2 == 0 || columns <= 1) return column == 0 ? stored_bytes : 0;
  const uint64_t stripe = uint64_t{1} << stripe_log2;
  const uint64_t whole = stored_bytes >> stripe_log2;  // whole pieces
  const uint64_t rest = stored_bytes & (stripe - 1);   // of the last piece, number `whole`
  const uint64_t mine = whole / columns + (column < whole % columns ? 1 : 0);
  return (mine << stripe_log2) + (rest > 0 && whole % columns == column ? rest : 0);
}

absl::Status CheckLayout(const ObjectRecord& record) {
  if (record.placement != Placement::kExtents) {
    if (record.columns.empty() && record.trailer.units == 0) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("record of generation ", record.generation, " has extents but another placement"));
  }
  const uint32_t columns = static_cast<uint32_t>(record.columns.size());
  if (columns == 0 || (columns > 1) != (record.stripe_log2 != 0) || record.stripe_log2 > 40 ||
      (record.stripe_log2 != 0 && record.stripe_log2 < record.block_log2)) {
    return absl::DataLossError(absl::StrCat("record of generation ", record.generation, " has ", columns,
                                            " columns and stripe_log2 ", int{record.stripe_log2}));
  }
  for (uint32_t column = 0; column < columns; ++column) {
    const uint64_t wanted = UnitsFor(ColumnBytes(record.stored_bytes, record.stripe_log2, columns, column));
    uint64_t units = 0;
    for (const Extent& extent : record.columns[column]) units += extent.units;
    if (units != wanted) {
      return absl::DataLossError(absl::StrCat("record of generation ", record.generation, ": column ", column,
                                              " has extents of ", units, " units, its bytes need ", wanted));
    }
  }
  return absl::OkStatus();
}

std::vector<FileRun> RunsOf(const ObjectRecord& record, uint64_t offset, uint64_t length) {
  std::vector<FileRun> runs;
  const uint64_t columns = record.columns.size();
  if (columns == 1) {
    AppendColumnRuns(record.columns[0], offset, length, offset, runs);
    return runs;
  }
  const uint64_t stripe = uint64_t{1} << record.stripe_log2;
  while (length > 0) {
    const uint64_t piece = offset >> record.stripe_log2;
    const uint64_t within = offset & (stripe - 1);
    const uint64_t taken = std::min(length, stripe - within);
    const uint64_t column_offset = ((piece / columns) << record.stripe_log2) + within;
    AppendColumnRuns(record.columns[piece % columns], column_offset, taken, offset, runs);
    offset += taken;
    length -= taken;
  }
  return runs;
}

std::vector<Extent> ExtentsOf(const ObjectRecord& record) {
  std::vector<Extent> extents;
  for (const auto& column : record.columns) extents.insert(extents.end(), column.begin(), column.end());
  if (record.trailer.units > 0) extents.push_back(record.trailer);
  return extents;
}

}  // namespace tensorshelf
