#include "store/row_check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "store/layout.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

using Level = Finding::Level;

std::string Quoted(const std::string& name) { return absl::StrCat("\"", EscapeForTerminal(name), "\""); }
std::string TextOf(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// How many sums an object has in rows of its own.
struct SumsNeed {
  uint64_t generation = 0;
  uint64_t count = 0;
};

// One pass over the families, each of which is kept as numbers only. Confined to one thread.
class RowChecker {
 public:
  RowChecker(Index& index, RowCheck* check, const std::function<void(RowFinding)>& found)
      : index_(index), check_(check), found_(found) {}

  absl::Status Run() {
    TS_RETURN_IF_ERROR(ScanNames());
    TS_RETURN_IF_ERROR(ScanObjects());
    TS_RETURN_IF_ERROR(ScanInline());
    TS_RETURN_IF_ERROR(ScanSums());
    TS_RETURN_IF_ERROR(FindDangling());
    FindNameless();
    return CheckInlineCount();
  }

 private:
  void Report(Finding finding, std::function<void(CommitBatch&)> mend = nullptr) {
    found_({std::move(finding), std::move(mend)});
  }

  // A row that cannot be understood: to be deleted, once somebody has accepted that.
  void ReportRow(const char* code, const std::string& message, IndexFamily family, std::span<const std::byte> key,
                 uint64_t generation) {
    Finding finding{.level = Level::kError, .code = code, .message = message, .generation = generation};
    finding.repair = "delete the row";
    finding.repair_loses = true;
    Report(std::move(finding),
           [family, row = TextOf(key)](CommitBatch& batch) { batch.DeleteRow(family, BytesOf(row)); });
  }

  absl::Status ScanNames() {
    absl::Status status =
        index_.ScanRows(IndexFamily::kNames, [&](std::span<const std::byte> key, std::span<const std::byte> value) {
          ++check_->names;
          const std::string name = key.empty() ? "" : TextOf(key.subspan(1));
          const auto row = DecodeNameRow(value);
          absl::Status valid = ValidateName(name);
          if (key.empty() || std::to_integer<uint8_t>(key[0]) != kUserNamespace) {
            valid = absl::DataLossError("its key is of an unknown namespace");
          }
          if (!row.ok() || !valid.ok()) {
            const absl::Status& why = valid.ok() ? row.status() : valid;
            Finding finding{.level = Level::kError,
                            .code = "name",
                            .message = absl::StrCat("name ", Quoted(name), ": ", std::string(why.message())),
                            .name = name};
            finding.repair = "delete the name; its object then has none";
            finding.repair_loses = true;
            Report(std::move(finding),
                   [bytes = TextOf(key)](CommitBatch& batch) { batch.DeleteRow(IndexFamily::kNames, BytesOf(bytes)); });
            return true;
          }
          ((row->flags & NameRow::kInline) != 0 ? named_inline_ : named_).push_back(row->generation);
          return true;
        });
    for (std::vector<uint64_t>* generations : {&named_, &named_inline_}) {
      std::ranges::sort(*generations);
      CountShared(*generations);
      generations->erase(std::unique(generations->begin(), generations->end()), generations->end());
    }
    std::ranges::sort(check_->shared);
    check_->distinct_inline = named_inline_.size();
    return status;
  }

  void CountShared(const std::vector<uint64_t>& sorted) {
    for (size_t i = 0; i < sorted.size();) {
      size_t end = i + 1;
      while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
      if (end - i >= 2) check_->shared.emplace_back(sorted[i], end - i);
      i = end;
    }
  }

  absl::Status ScanObjects() {
    return index_.ScanRows(
        IndexFamily::kObjects, [&](std::span<const std::byte> key, std::span<const std::byte> value) {
          ++check_->objects;
          const auto generation = ByteReader(key).Big<uint64_t>();
          if (!generation || key.size() != 8) {
            ReportRow("record", absl::StrCat("the key of an object row has ", key.size(), " bytes, not 8"),
                      IndexFamily::kObjects, key, 0);
            return true;
          }
          there_.push_back(*generation);
          const absl::Status status = CheckObject(*generation, value);
          if (absl::IsUnimplemented(status)) {
            Report({.level = Level::kNote,
                    .code = "record",
                    .message = absl::StrCat("record ", *generation, ": ", std::string(status.message())),
                    .generation = *generation});
          } else if (!status.ok()) {
            ReportRow("record", absl::StrCat("record ", *generation, ": ", std::string(status.message())),
                      IndexFamily::kObjects, key, *generation);
          }
          return true;
        });
  }

  absl::Status CheckObject(uint64_t generation, std::span<const std::byte> row) {
    TS_ASSIGN_OR_RETURN(const RecordSpace space, DecodeRecordSpace(row));
    if (space.generation != generation) {
      return absl::DataLossError(absl::StrCat("it says that it is record ", space.generation));
    }
    for (const Extent& extent : space.extents) check_->owned.push_back({generation, extent});
    TS_ASSIGN_OR_RETURN(const ObjectRecord record, DecodeRecord(row));
    TS_RETURN_IF_ERROR(CheckLayout(record));
    if (record.placement == Placement::kExtents && record.sums.empty() && record.sums_count() > 0) {
      needs_.push_back({generation, record.sums_count()});
    }
    return absl::OkStatus();
  }

  absl::Status ScanInline() {
    return index_.ScanRows(IndexFamily::kInline, [&](std::span<const std::byte> key, std::span<const std::byte> value) {
      ++check_->inline_objects;
      const auto generation = ByteReader(key).Big<uint64_t>();
      if (!generation || key.size() != 8) {
        ReportRow("record", absl::StrCat("the key of an inline object has ", key.size(), " bytes, not 8"),
                  IndexFamily::kInline, key, 0);
        return true;
      }
      there_inline_.push_back(*generation);
      const auto row = DecodeInlineRow(value);
      if (!row.ok()) {
        ReportRow("record", absl::StrCat("inline object ", *generation, ": ", std::string(row.status().message())),
                  IndexFamily::kInline, key, *generation);
      } else if (row->record.generation != *generation) {
        ReportRow("record",
                  absl::StrCat("inline object ", *generation, " says that it is record ", row->record.generation),
                  IndexFamily::kInline, key, *generation);
      } else {
        ++inline_count_.rows;
        inline_count_.bytes += row->record.logical_bytes;
      }
      return true;
    });
  }

  // Rows come by generation, as `needs_` does: a merge.
  absl::Status ScanSums() {
    auto need = needs_.begin();
    uint64_t counted = 0, next_row = 0;
    const auto finish_need = [&] {
      if (counted != need->count) {
        Report({.level = Level::kError,
                .code = "sums",
                .message = absl::StrCat("object ", need->generation, " has ", counted, " of its ", need->count,
                                        " checksums: it cannot be read"),
                .generation = need->generation});
      }
      ++need;
      counted = next_row = 0;
    };
    absl::Status status =
        index_.ScanRows(IndexFamily::kSums, [&](std::span<const std::byte> key, std::span<const std::byte> value) {
          ByteReader reader(key);
          const auto generation = reader.Big<uint64_t>();
          const auto row = reader.Big<uint32_t>();
          if (!generation || !row || key.size() != 12) {
            ReportRow("sums", absl::StrCat("the key of a row of checksums has ", key.size(), " bytes, not 12"),
                      IndexFamily::kSums, key, 0);
            return true;
          }
          while (need != needs_.end() && need->generation < *generation) finish_need();
          if (need == needs_.end() || need->generation != *generation) {
            ReportLeftoverSums(*generation, key);
            return true;
          }
          const auto sums = DecodeSumsRow(value);
          if (!sums.ok()) {
            Report({.level = Level::kError,
                    .code = "sums",
                    .message = absl::StrCat("row ", *row, " of the checksums of object ", *generation, ": ",
                                            std::string(sums.status().message())),
                    .generation = *generation});
          } else if (*row == next_row) {
            counted += sums->size();
          }
          ++next_row;
          return true;
        });
    while (status.ok() && need != needs_.end()) finish_need();
    return status;
  }

  void ReportLeftoverSums(uint64_t generation, std::span<const std::byte> key) {
    Finding finding{.level = Level::kWarning,
                    .code = "sums",
                    .message = absl::StrCat("checksums of object ", generation, ", which is not there or has them in ",
                                            "its record"),
                    .generation = generation};
    finding.repair = "delete the row";
    Report(std::move(finding),
           [row = TextOf(key)](CommitBatch& batch) { batch.DeleteRow(IndexFamily::kSums, BytesOf(row)); });
  }

  // Names whose object is not there. Their texts were not kept, so this reads the names again when there are any.
  absl::Status FindDangling() {
    std::vector<uint64_t> dangling, dangling_inline;
    std::ranges::set_difference(named_, there_, std::back_inserter(dangling));
    std::ranges::set_difference(named_inline_, there_inline_, std::back_inserter(dangling_inline));
    if (dangling.empty() && dangling_inline.empty()) return absl::OkStatus();
    return index_.ScanRows(IndexFamily::kNames, [&](std::span<const std::byte> key, std::span<const std::byte> value) {
      const auto row = DecodeNameRow(value);
      if (!row.ok()) return true;
      const auto& missing = (row->flags & NameRow::kInline) != 0 ? dangling_inline : dangling;
      if (!std::ranges::binary_search(missing, row->generation)) return true;
      Finding finding{.level = Level::kError, .code = "name", .name = TextOf(key.subspan(1))};
      finding.generation = row->generation;
      finding.message =
          absl::StrCat("name ", Quoted(finding.name), " points to object ", row->generation, ", which is not there");
      finding.repair = "delete the name";
      finding.repair_loses = true;
      Report(std::move(finding),
             [bytes = TextOf(key)](CommitBatch& batch) { batch.DeleteRow(IndexFamily::kNames, BytesOf(bytes)); });
      return true;
    });
  }

  void FindNameless() {
    std::vector<uint64_t> nameless_inline;
    std::ranges::set_difference(there_, named_, std::back_inserter(check_->nameless));
    std::ranges::set_difference(there_inline_, named_inline_, std::back_inserter(nameless_inline));
    const auto report = [&](uint64_t generation, uint8_t flags) {
      Finding finding{.level = Level::kWarning,
                      .code = "nameless",
                      .message = absl::StrCat("object ", generation, " has no name; it takes space"),
                      .generation = generation};
      const std::string name = absl::StrCat("lost+found/", generation);
      finding.repair = absl::StrCat("name it ", name);
      Report(std::move(finding),
             [name, row = NameRow{flags, generation, {}}](CommitBatch& batch) { batch.PutName(name, row); });
    };
    for (const uint64_t generation : check_->nameless) report(generation, 0);
    for (const uint64_t generation : nameless_inline) report(generation, NameRow::kInline);
  }

  absl::Status CheckInlineCount() {
    TS_ASSIGN_OR_RETURN(const InlineCountRow stored, index_.ReadInlineCount());
    if (stored == inline_count_) return absl::OkStatus();
    Finding finding{.level = Level::kWarning,
                    .code = "count",
                    .message = absl::StrCat("the index counts ", stored.rows, " inline objects of ", stored.bytes,
                                            " bytes, there are ", inline_count_.rows, " of ", inline_count_.bytes)};
    finding.repair = "count them anew";
    Report(std::move(finding), [count = inline_count_](CommitBatch& batch) { batch.PutInlineCount(count); });
    return absl::OkStatus();
  }

  Index& index_;
  RowCheck* const check_;
  const std::function<void(RowFinding)>& found_;
  std::vector<uint64_t> named_, named_inline_;  // generations that names point to, rising, each once
  std::vector<uint64_t> there_, there_inline_;  // generations of rows, rising
  std::vector<SumsNeed> needs_;                 // by generation
  InlineCountRow inline_count_;
};

}  // namespace

absl::Status CheckRows(Index& index, RowCheck* check, const std::function<void(RowFinding)>& found) {
  return RowChecker(index, check, found).Run();
}

}  // namespace tensorshelf
