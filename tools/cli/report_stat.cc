#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "store/name.h"
#include "tools/cli/opening.h"
#include "tools/cli/report.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

PlacedExtent Place(const StoreInfo& info, const Extent& extent, uint32_t column) {
  PlacedExtent placed{"", extent.file_id, column, extent.offset(), extent.bytes()};
  const auto file = std::ranges::find(info.files, extent.file_id, &FileInfo::file_id);
  if (file != info.files.end()) placed.file = file->path;
  return placed;
}

std::string PlaceText(const PlacedExtent& extent) {
  const std::string file =
      extent.file.empty() ? absl::StrCat("missing file ", extent.file_id) : EscapeForTerminal(extent.file);
  return absl::StrCat(file, ", offset ", extent.offset, ", length ", extent.length);
}

Json PlaceJson(const PlacedExtent& extent) {
  return {{"file", extent.file.empty() ? Json(nullptr) : Json(extent.file)},
          {"file_id", extent.file_id},
          {"column", extent.column},
          {"offset", extent.offset},
          {"length", extent.length}};
}

std::string SumText(uint64_t sum) { return absl::StrFormat("%016x", sum); }

}  // namespace

std::vector<PlacedExtent> PlaceExtents(const StoreInfo& info, const ObjectRecord& record) {
  std::vector<PlacedExtent> placed;
  for (uint32_t column = 0; column < record.columns.size(); ++column) {
    for (const Extent& extent : record.columns[column]) placed.push_back(Place(info, extent, column));
  }
  return placed;
}

std::optional<PlacedExtent> PlaceTrailer(const StoreInfo& info, const ObjectRecord& record) {
  if (record.trailer.units == 0) return std::nullopt;
  return Place(info, record.trailer, 0);
}

std::string RenderStat(const StatReport& report, const Console& console) {
  const ObjectRecord& record = report.record;
  std::string text = absl::StrCat("name          ", Painted(console, Colour::kBold, EscapeForTerminal(report.name)),
                                  "\n", "dtype         ", FormatDtype(record), "\n");
  if (record.kind == ObjectKind::kTensor) absl::StrAppend(&text, "shape         ", FormatShape(record.shape), "\n");
  absl::StrAppend(&text, "size          ", FormatBytes(record.logical_bytes), " (", record.logical_bytes, " B)\n",
                  "created       ", FormatTime(record.created_ns), "\ngeneration    ", record.generation, " (epoch ",
                  record.generation >> 40, ")\nfingerprint   ", Hex(record.fingerprint), "\nplacement     ",
                  PlacementText(record.placement), "\n");
  for (const PlacedExtent& extent : report.extents) absl::StrAppend(&text, "extent        ", PlaceText(extent), "\n");
  if (report.trailer) absl::StrAppend(&text, "trailer       ", PlaceText(*report.trailer), "\n");
  absl::StrAppend(&text, "sums          ", record.sums_count(), ", one for each ", FormatBytes(record.block_bytes()),
                  "\n");
  if (report.sums) {
    for (size_t i = 0; i < report.sums->size(); ++i) {
      absl::StrAppend(&text, "  block ", i, "  ", SumText((*report.sums)[i]), "\n");
    }
  }
  if (record.incompat != 0)
    absl::StrAppend(&text, "incompat      ", record.incompat, " (cannot be read by this version)\n");
  for (const auto& [key, value] : report.metadata) {
    absl::StrAppend(&text, "metadata      ", EscapeForTerminal(key), " = ", EscapeForTerminal(value), "\n");
  }
  if (report.shared_by) {
    for (const std::string& name : *report.shared_by) {
      absl::StrAppend(&text, "known as      ", EscapeForTerminal(name), "\n");
    }
  }
  return absl::StrCat(text, "answer        ", StandingText(report.info), "\n");
}

Json StatJson(const StatReport& report) {
  const ObjectRecord& record = report.record;
  Json object = ObjectJson(report.name, record);
  object.update({{"epoch", record.generation >> 40},
                 {"stored_size", record.stored_bytes},
                 {"encoding", record.encoding},
                 {"incompat", record.incompat},
                 {"dtype_number", record.dtype},
                 {"fingerprint", Hex(record.fingerprint)},
                 {"block_size", record.block_bytes()},
                 {"sums_count", record.sums_count()},
                 {"stripe_log2", record.stripe_log2},
                 {"place_seq", record.place_seq}});
  Json extents = Json::array();
  for (const PlacedExtent& extent : report.extents) extents.push_back(PlaceJson(extent));
  object["extents"] = std::move(extents);
  object["trailer"] = report.trailer ? PlaceJson(*report.trailer) : Json(nullptr);
  object["metadata"] = report.metadata;
  if (report.sums) {
    Json sums = Json::array();
    for (const uint64_t sum : *report.sums) sums.push_back(SumText(sum));
    object["sums"] = std::move(sums);
  }
  if (report.shared_by) object["known_as"] = *report.shared_by;
  Json json = Envelope("stat", report.info);
  json["object"] = std::move(object);
  return json;
}

}  // namespace tensorshelf::cli
