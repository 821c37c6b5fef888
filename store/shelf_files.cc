#include "store/shelf_files.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "store/errors.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

// The number in "00000012.tsd"; false for other names.
bool ParseDataFileName(const std::string& name, uint32_t& file_id) {
  if (name.size() != 12 || name.substr(8) != ".tsd") return false;
  if (!std::all_of(name.begin(), name.begin() + 8, [](unsigned char c) { return std::isdigit(c) != 0; })) return false;
  return absl::SimpleAtoi(name.substr(0, 8), &file_id);
}

absl::StatusOr<FoundFile> OpenDataFile(Disk& disk, const std::string& path, const std::string& directory,
                                       const Uuid& store_uuid, bool writable) {
  FoundFile found;
  found.file = std::make_unique<DataFile>();
  found.file->path = path;
  found.file->directory = directory;
  TS_ASSIGN_OR_RETURN(found.file->file, disk.Open(path, {.writable = writable}));
  TS_ASSIGN_OR_RETURN(LabelReading reading, ReadLabel(*found.file->file));
  found.label = reading.label;
  found.access = reading.access;
  if (TS_MUTATE(accept_foreign_files)) found.label.store_uuid = store_uuid;
  if (found.label.store_uuid != store_uuid) return found;  // the caller judges foreign files
  TS_ASSIGN_OR_RETURN(found.slots, ReadSlots(*found.file->file, store_uuid, found.label.file_id));
  found.file->row = {found.label.file_id, found.label.device_uuid, found.label.size, found.label.data_begin,
                     found.label.data_end};
  found.file->witness_commit = found.slots.durable_commit_max;
  if (found.slots.newest.has_value()) {
    found.file->slot_seq = found.slots.newest->slot_seq;
    found.file->filled_until = std::min(found.slots.newest->filled_until_bytes, found.label.data_end);
  }
  return found;
}

}  // namespace

std::string JoinPath(const std::string& directory, const std::string& name) {
  return absl::StrCat(directory, "/", name);
}

std::string DataFileName(uint32_t file_id) { return absl::StrFormat("%08d.tsd", file_id); }

absl::StatusOr<StoreFile> ReadStoreFile(Disk& disk, const std::string& shelf) {
  const std::string path = JoinPath(shelf, kStoreFileName);
  TS_ASSIGN_OR_RETURN(const PathInfo info, disk.Stat(path));
  if (info.kind == PathInfo::Kind::kAbsent) {
    TS_ASSIGN_OR_RETURN(const PathInfo directory, disk.Stat(shelf));
    const char* what = directory.kind == PathInfo::Kind::kAbsent      ? "nothing is there"
                       : directory.kind == PathInfo::Kind::kDirectory ? "the directory has no STORE file"
                                                                      : "it is not a directory";
    return absl::NotFoundError(absl::StrCat("no store at ", shelf, ": ", what));
  }
  TS_ASSIGN_OR_RETURN(const std::string text, ReadFile(disk, path, kStoreFileBytesMax));
  auto parsed = ParseStoreFile(text);
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  return parsed;
}

absl::StatusOr<ShelfFiles> FindShelfFiles(Disk& disk, const std::string& shelf, const FindOptions& options) {
  ShelfFiles found;
  TS_ASSIGN_OR_RETURN(found.store_file, ReadStoreFile(disk, shelf));
  std::vector<std::pair<std::string, bool>> directories{{shelf, true}};  // path, ours by name
  for (const auto& device : found.store_file.devices) {
    directories.emplace_back(ResolveHint(shelf, device.path_hint), true);
  }
  for (const std::string& extra : options.extra_directories) directories.emplace_back(extra, false);
  std::map<uint32_t, std::string> path_of;
  for (const auto& [directory, ours] : directories) {
    if (std::find(found.device_directories.begin(), found.device_directories.end(), directory) !=
        found.device_directories.end()) {
      continue;
    }
    const auto info = disk.Stat(directory);
    if (!info.ok() || info->kind != PathInfo::Kind::kDirectory) continue;  // its files are missed by MatchFileRows
    found.device_directories.push_back(directory);
    TS_ASSIGN_OR_RETURN(const std::vector<std::string> names, disk.List(directory));
    for (const std::string& name : names) {
      uint32_t number = 0;
      if (!ParseDataFileName(name, number)) continue;
      const std::string path = JoinPath(directory, name);
      auto opened = OpenDataFile(disk, path, directory, found.store_file.store_uuid, options.writable);
      if (!opened.ok()) {
        if (!options.skip_damaged && absl::IsDataLoss(opened.status())) {
          found.damaged.push_back({number, path, opened.status()});
          continue;
        }
        if (!options.skip_damaged) return opened.status();
        found.notices.push_back(absl::StrCat(path, ": ", std::string(opened.status().message())));
        continue;
      }
      const Label& label = opened->label;
      if (label.store_uuid != found.store_file.store_uuid) {
        if (!ours) continue;
        return absl::DataLossError(absl::StrCat(path, " belongs to store ", UuidText(label.store_uuid), ", not to ",
                                                UuidText(found.store_file.store_uuid)));
      }
      if (label.file_id != number && !TS_MUTATE(accept_swapped_files)) {
        return absl::DataLossError(
            absl::StrCat(path, " is data file ", label.file_id, " by its label: files were swapped or renamed"));
      }
      const auto [first, is_new] = path_of.try_emplace(label.file_id, path);
      if (!is_new) {
        return absl::DataLossError(
            absl::StrCat("data file ", label.file_id, " is there twice: ", first->second, " and ", path));
      }
      if (opened->slots.damaged_count > 0) {
        found.notices.push_back(absl::StrCat(path, ": ", opened->slots.damaged_count, " damaged witness slots"));
      }
      found.files.push_back(*std::move(opened));
    }
  }
  std::sort(found.files.begin(), found.files.end(),
            [](const FoundFile& a, const FoundFile& b) { return a.label.file_id < b.label.file_id; });
  return found;
}

absl::StatusOr<std::vector<std::string>> MatchFileRows(ShelfFiles& found, const std::vector<FileRow>& rows,
                                                       bool degraded) {
  std::vector<FoundFile> matched;
  std::vector<std::string> missing;
  for (const FileRow& row : rows) {
    const auto file = std::find_if(found.files.begin(), found.files.end(), [&](const FoundFile& candidate) {
      return candidate.file != nullptr && candidate.label.file_id == row.file_id;
    });
    if (file == found.files.end()) {
      const auto damaged = std::ranges::find(found.damaged, row.file_id, &ShelfFiles::Damaged::file_id);
      if (damaged != found.damaged.end() && !degraded) return damaged->status;
      FoundFile absent;
      absent.file = std::make_unique<DataFile>();
      absent.file->row = row;
      matched.push_back(std::move(absent));
      missing.push_back(absl::StrCat("data file ", row.file_id, " of device ", UuidText(row.device_uuid)));
      continue;
    }
    if (!(file->file->row == row) && !TS_MUTATE(accept_other_bounds)) {
      return absl::DataLossError(absl::StrCat(file->file->path, ": its label (size ", file->label.size, ", data [",
                                              file->label.data_begin, ", ", file->label.data_end,
                                              ")) and the index (size ", row.size, ", data [", row.data_begin, ", ",
                                              row.data_end, ")) disagree"));
    }
    matched.push_back(std::move(*file));
  }
  if (!missing.empty() && !degraded) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kDeviceMissing,
                     absl::StrCat("not found: ", absl::StrJoin(missing, ", "),
                                  " (name its directory in devices, or open degraded to read the rest)"));
  }
  std::vector<std::string> orphans;
  for (const FoundFile& file : found.files) {
    if (file.file != nullptr) orphans.push_back(file.file->path);
  }
  for (const ShelfFiles::Damaged& file : found.damaged) {
    const auto named = std::ranges::find(rows, file.file_id, &FileRow::file_id);
    if (named == rows.end()) orphans.push_back(file.path);
  }
  found.files = std::move(matched);
  return orphans;
}

}  // namespace tensorshelf
