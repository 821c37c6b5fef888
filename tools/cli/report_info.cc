#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "store/name.h"
#include "store/uuid.h"
#include "tools/cli/report.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

std::string Features(const StoreInfo& info) {
  if ((info.compat | info.ro_compat | info.incompat) == 0) return "none";
  return absl::StrFormat("compat %#x, ro_compat %#x, incompat %#x", info.compat, info.ro_compat, info.incompat);
}

std::string WriterText(const StoreInfo& info) { return info.writer.empty() ? "none" : EscapeForTerminal(info.writer); }

std::string TuningText(const std::optional<TuningRow>& tuning) {
  if (!tuning) return "not measured: the defaults";
  return absl::StrCat("transfers of ", FormatBytes(tuning->io_size), ", ", tuning->queue_depth,
                      " in flight for each of ", FormatCount(tuning->worker_count, "worker"), "; so ",
                      FormatBytes(tuning->read_bytes_per_s), "/s read and ", FormatBytes(tuning->write_bytes_per_s),
                      "/s written");
}

Json TuningJson(const std::optional<TuningRow>& tuning) {
  if (!tuning) return nullptr;
  return {{"io_size", tuning->io_size},
          {"queue_depth", tuning->queue_depth},
          {"workers", tuning->worker_count},
          {"read_bytes_per_s", tuning->read_bytes_per_s},
          {"write_bytes_per_s", tuning->write_bytes_per_s}};
}

std::string RenderFile(const FileInfo& file, const std::string& file_system, const Console& console) {
  std::string text = Painted(console, Colour::kBold, absl::StrCat("data file ", file.file_id));
  if (file.path.empty()) {
    return absl::StrCat(text, "  ", Painted(console, Colour::kRed, "MISSING"), "\n  device      ",
                        UuidText(file.device_uuid), "\n");
  }
  const uint64_t capacity = file.data_end - file.data_begin;
  absl::StrAppend(&text, "  ", EscapeForTerminal(file.path), "\n  device      ", UuidText(file.device_uuid),
                  file_system.empty() ? "" : absl::StrCat(", ", file_system),
                  file.tier.empty() ? "" : absl::StrCat(", tier ", EscapeForTerminal(file.tier)), "\n  size        ",
                  FormatBytes(file.size), ", ", FormatBytes(capacity), " for data in [", file.data_begin, ", ",
                  file.data_end, ")\n");
  absl::StrAppend(&text, "  transfers   ", file.alignment.direct ? "direct" : "through the page cache",
                  ", memory aligned to ", file.alignment.memory, ", offsets to ", file.alignment.offset, "\n");
  absl::StrAppend(&text, "  tuning      ", TuningText(file.tuning), "\n");
  const uint64_t filled = file.filled_until > file.data_begin ? file.filled_until - file.data_begin : 0;
  const double share = capacity == 0 ? 0 : 100.0 * static_cast<double>(filled) / static_cast<double>(capacity);
  absl::StrAppend(&text, "  filled      ", absl::StrFormat("%.0f %%", share), " (", FormatBytes(filled), ")\n",
                  "  witness     commit ", file.witness_commit, "\n");
  if (file.space.capacity > 0) {
    absl::StrAppend(&text, "  space       ", FormatBytes(file.space.live), " live, ", FormatBytes(file.space.free),
                    " free, largest run ", FormatBytes(file.largest_free), "\n");
  }
  if (file.read_only)
    absl::StrAppend(&text, "  ", Painted(console, Colour::kRed, "read-only after a write error"), "\n");
  return text;
}

Json FileJson(const FileInfo& file, const std::string& file_system) {
  Json json = {{"file_id", file.file_id},
               {"path", file.path.empty() ? Json(nullptr) : Json(file.path)},
               {"device", UuidText(file.device_uuid)},
               {"tier", file.tier},
               {"file_system", file_system.empty() ? Json(nullptr) : Json(file_system)},
               {"size", file.size},
               {"data_begin", file.data_begin},
               {"data_end", file.data_end},
               {"filled_until", file.filled_until},
               {"direct", file.alignment.direct},
               {"memory_alignment", file.alignment.memory},
               {"offset_alignment", file.alignment.offset},
               {"witness_commit", file.witness_commit},
               {"read_only", file.read_only}};
  json["tuning"] = TuningJson(file.tuning);
  json["space"] = file.space.capacity > 0 ? SpaceJson(file.space) : Json(nullptr);
  return json;
}

}  // namespace

std::string RenderInfo(const InfoReport& report, const Console& console) {
  const StoreInfo& info = report.info;
  std::string text = absl::StrCat("shelf         ", EscapeForTerminal(info.path), "\nstore         ",
                                  UuidText(info.store_uuid), "\nformat        ", info.format, "\nfeatures      ",
                                  Features(info), "\ncommit        ", info.commit, "\nepoch         ", info.epoch,
                                  "\nopened        ", info.mode, "\nwriter        ", WriterText(info), "\n");
  absl::StrAppend(&text, "page lock     ",
                  report.page_lock_limit ? absl::StrCat("at most ", FormatBytes(*report.page_lock_limit)) : "no limit",
                  " for a process of this user\n");
  if (report.names) absl::StrAppend(&text, "names         ", *report.names, "\n");
  for (size_t i = 0; i < info.files.size(); ++i) {
    text += RenderFile(info.files[i], i < report.file_systems.size() ? report.file_systems[i] : "", console);
  }
  for (const std::string& orphan : info.orphan_files) {
    absl::StrAppend(&text, Painted(console, Colour::kYellow, "orphan file"), "   ", EscapeForTerminal(orphan), "\n");
  }
  return text;
}

Json InfoJson(const InfoReport& report) {
  const StoreInfo& info = report.info;
  Json json = Envelope("info", info);
  json.update({{"format", info.format},
               {"features", {{"compat", info.compat}, {"ro_compat", info.ro_compat}, {"incompat", info.incompat}}},
               {"epoch", info.epoch},
               {"page_locked", info.page_locked}});
  json["page_lock_limit"] = report.page_lock_limit ? Json(*report.page_lock_limit) : Json(nullptr);
  json["names"] = report.names ? Json(*report.names) : Json(nullptr);
  Json files = Json::array();
  for (size_t i = 0; i < info.files.size(); ++i) {
    files.push_back(FileJson(info.files[i], i < report.file_systems.size() ? report.file_systems[i] : ""));
  }
  json["files"] = std::move(files);
  json["orphan_files"] = info.orphan_files;
  return json;
}

}  // namespace tensorshelf::cli
