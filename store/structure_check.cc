// One check is one walk: STORE, data files, witness rules, index, rows, space, what lies about. Repairs are collected
// as it goes and done afterwards, those of the index as one commit; then everything is checked again, since one repair
// may bring another one to light (a record that is deleted leaves names that point to nothing).

#include "store/structure_check.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "index/index.h"
#include "store/errors.h"
#include "store/features.h"
#include "store/freemap.h"
#include "store/open_checks.h"
#include "store/row_check.h"
#include "store/shelf_files.h"
#include "store/shelf_lock.h"
#include "store/space_map.h"
#include "store/store_core.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

using Level = Finding::Level;

constexpr uint64_t kFreemapBytesMax = uint64_t{8} << 30;
constexpr int kRoundsMax = 4;
constexpr int kFollowTries = 5;
constexpr char kRescue[] = "; `index restore` brings a backup back, `index salvage` finds objects by their trailers";

struct Problem {
  Finding finding;
  std::function<absl::Status()> mend;           // on files; null: not there
  std::function<void(CommitBatch&)> mend_rows;  // in the index
  bool mend_by_commit = false;                  // any commit mends it
};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

bool IsDataFileName(const std::string& name, uint32_t* file_id) {
  return name.size() == 12 && name.substr(8) == ".tsd" && absl::SimpleAtoi(name.substr(0, 8), file_id) &&
         DataFileName(*file_id) == name;
}

// One walk. Confined to one thread.
class StructureChecker {
 public:
  StructureChecker(Disk& disk, const std::string& path, const StructureCheckOptions& options,
                   const std::function<void(const Finding&)>& on_finding)
      : disk_(disk), path_(path), options_(options), on_finding_(on_finding) {}

  absl::Status Check() {
    TS_RETURN_IF_ERROR(FindWriter());
    TS_RETURN_IF_ERROR(CheckStoreFile());
    if (!report_.store_uuid_known) return absl::OkStatus();
    CheckDataFiles();
    CheckLeftovers();
    CheckProbes();
    CheckIndex();
    index_.reset();
    return absl::OkStatus();
  }

  // Does what is allowed. Returns how many findings were mended.
  absl::StatusOr<uint64_t> Repair(const std::function<void(const Finding&)>& before_repair) {
    uint64_t mended = 0;
    std::vector<const Problem*> rows;
    // A log with acknowledged commits behind its damage: opening it for writing is the loss.
    bool index_may_change = index_ready_;
    for (const Problem& problem : problems_) {
      if (problem.mend_by_commit && !options_.accept_loss) index_may_change = false;
    }
    for (const Problem& problem : problems_) {
      if (problem.finding.repair.empty() || (problem.finding.repair_loses && !options_.accept_loss)) continue;
      if (problem.mend == nullptr) {
        if (index_may_change) rows.push_back(&problem);
        continue;
      }
      if (before_repair) before_repair(problem.finding);
      TS_RETURN_IF_ERROR(problem.mend());
      ++mended;
    }
    if (!rows.empty()) {
      for (const Problem* problem : rows) {
        if (before_repair) before_repair(problem->finding);
      }
      TS_RETURN_IF_ERROR(MendIndex(rows));
      mended += rows.size();
    }
    return mended;
  }

  struct Report : StructureReport {
    bool store_uuid_known = false;
  };
  Report& report() { return report_; }
  const std::vector<Problem>& problems() const { return problems_; }

 private:
  void Add(Finding finding, std::function<absl::Status()> mend = nullptr,
           std::function<void(CommitBatch&)> mend_rows = nullptr) {
    // Whoever writes mends; what is seen beside it may be on its way.
    if (report_.beside_writer) finding.repair.clear();
    uint64_t& count = finding.level == Level::kError     ? report_.errors
                      : finding.level == Level::kWarning ? report_.warnings
                                                         : report_.notes;
    ++count;
    if (on_finding_) on_finding_(finding);
    problems_.push_back({std::move(finding), std::move(mend), std::move(mend_rows)});
  }
  void AddError(const char* code, const std::string& message, const std::string& file = "") {
    Add({.level = Level::kError, .code = code, .message = message, .file = file});
  }

  std::string index_path() const { return JoinPath(path_, kIndexName); }

  absl::Status FindWriter() {
    if (options_.repair) return absl::OkStatus();  // the caller holds the lock
    const auto holder = disk_.LockHolder(JoinPath(path_, kLockFileName));
    if (holder.ok()) {
      report_.beside_writer = true;
      report_.writer = *holder;
      return absl::OkStatus();
    }
    return absl::IsNotFound(holder.status()) ? absl::OkStatus() : holder.status();
  }

  // --- STORE ---

  absl::Status CheckStoreFile() {
    const std::string path = JoinPath(path_, kStoreFileName);
    TS_ASSIGN_OR_RETURN(const PathInfo info, disk_.Stat(path));
    absl::Status wrong = absl::DataLossError("it is missing");
    if (info.kind == PathInfo::Kind::kFile) {
      const auto text = ReadFile(disk_, path, kStoreFileBytesMax);
      const auto parsed = text.ok() ? ParseStoreFile(*text) : absl::StatusOr<StoreFile>(text.status());
      if (parsed.ok()) {
        store_file_ = *parsed;
        report_.store_uuid = parsed->store_uuid;
        report_.store_uuid_known = true;
        return absl::OkStatus();
      }
      wrong = parsed.status();
    }
    TS_ASSIGN_OR_RETURN(const StoreFile rebuilt, StoreFileFromLabels());
    Finding finding{.level = Level::kError, .code = "store_file", .message = Message(wrong), .file = path};
    if (rebuilt.devices.empty()) {
      // Nothing says that this is a shelf, or a damaged one.
      if (info.kind != PathInfo::Kind::kFile) {
        return absl::NotFoundError(absl::StrCat("no store at ", path_, ": there is neither STORE nor a data file"));
      }
      Add(std::move(finding));
      return absl::OkStatus();
    }
    finding.repair = absl::StrCat("write it anew from the labels of ", rebuilt.devices.size(), " devices");
    Add(std::move(finding), [this, path, rebuilt] { return ReplaceFile(disk_, path, FormatStoreFile(rebuilt)); });
    return absl::OkStatus();
  }

  // What the labels of the data files in the shelf, and in the directories that the caller named, say together; no
  // devices when they do not agree.
  absl::StatusOr<StoreFile> StoreFileFromLabels() {
    StoreFile rebuilt;
    std::vector<std::string> directories{path_};
    for (const std::string& device : options_.devices) directories.push_back(AbsolutePath(device));
    for (const std::string& directory : directories) {
      const auto names = disk_.List(directory);
      if (!names.ok()) continue;
      for (const std::string& name : *names) {
        uint32_t number = 0;
        if (!IsDataFileName(name, &number)) continue;
        auto file = disk_.Open(JoinPath(directory, name), {});
        if (!file.ok()) continue;
        const auto reading = ReadLabel(**file);
        if (!reading.ok()) continue;
        if (!rebuilt.devices.empty() && rebuilt.store_uuid != reading->label.store_uuid) return StoreFile();
        rebuilt.store_uuid = reading->label.store_uuid;
        const StoreFile::Device device{reading->label.device_uuid, PathHint(path_, directory)};
        if (std::ranges::find(rebuilt.devices, device) == rebuilt.devices.end()) rebuilt.devices.push_back(device);
      }
    }
    return rebuilt;
  }

  // --- data files ---

  void CheckDataFiles() {
    auto found = FindShelfFiles(disk_, path_, {.extra_directories = options_.devices, .skip_damaged = true});
    if (!found.ok()) {
      AddError("data_file", Message(found.status()));
      return;
    }
    found_ = *std::move(found);
    files_known_ = true;
    std::set<std::string> read;
    for (const FoundFile& file : found_.files) {
      read.insert(file.file->path);
      CheckLabel(file);
      CheckSlots(file);
    }
    for (const std::string& directory : found_.device_directories) {
      const auto names = disk_.List(directory);
      if (!names.ok()) continue;
      for (const std::string& name : *names) {
        uint32_t number = 0;
        const std::string path = JoinPath(directory, name);
        if (!IsDataFileName(name, &number) || read.contains(path)) continue;
        auto file = disk_.Open(path, {});
        unreadable_[number] = {path, file.ok() ? Message(ReadLabel(**file).status()) : Message(file.status())};
      }
    }
    slots_ = SummarizeSlots(found_.files);
  }

  void CheckLabel(const FoundFile& file) {
    const auto reading = ReadLabel(*file.file->file);
    if (!reading.ok()) return;  // it could be read a moment ago; the next check sees more
    for (const std::string& damaged : reading->damaged) {
      Finding finding{.level = Level::kWarning, .code = "label", .message = damaged, .file = file.file->path};
      finding.repair = "write all three copies of the label anew";
      Add(std::move(finding),
          [this, path = file.file->path, label = reading->label] { return RewriteLabel(path, label); });
    }
  }

  absl::Status RewriteLabel(const std::string& path, Label label) {
    TS_ASSIGN_OR_RETURN(auto file, disk_.Open(path, {.writable = true}));
    ++label.label_seq;
    return WriteLabels(*file, label);
  }

  void CheckSlots(const FoundFile& file) {
    for (const std::string& damaged : file.slots.damaged) {
      // Legal: the slot that was being written at a crash. The next round over the slots writes it anew.
      Add({.level = Level::kNote, .code = "witness", .message = damaged, .file = file.file->path});
    }
  }

  void CheckLeftovers() {
    if (report_.beside_writer || !files_known_) return;
    const auto check = [&](const std::string& path, const char* what) {
      const auto info = disk_.Stat(path);
      if (!info.ok() || info->kind != PathInfo::Kind::kFile) return;
      Finding finding{.level = Level::kWarning, .code = "leftover", .message = what, .file = path};
      finding.repair = "remove it";
      Add(std::move(finding), [this, path] { return disk_.Remove(path); });
    };
    check(JoinPath(path_, absl::StrCat(kStoreFileName, ".tmp")), "a rewriting of STORE that did not finish");
    check(JoinPath(path_, absl::StrCat(kFreemapName, ".tmp")), "a writing of the freemap that did not finish");
    for (const std::string& directory : found_.device_directories) {
      check(JoinPath(directory, kCreatingFileName), "the mark of a creation that did finish");
    }
  }

  // --- the index as a whole ---

  // Without a writer: what the recovery modes see, against the witness. (An open would refuse what is found here.)
  void CheckProbes() {
    if (report_.beside_writer) return;
    auto probe = ProbeIndex(index_path(), ProbeMode::kPointInTime, {});
    if (!probe.ok() || !probe->exists) {
      AddError(
          "index",
          probe.ok() ? absl::StrCat("the index is missing", kRescue) : absl::StrCat(Message(probe.status()), kRescue),
          index_path());
      return;
    }
    commit_ = std::max(probe->commit.commit, slots_.durable_commit);
    report_.commit = probe->commit.commit;
    index_ready_ = true;
    std::optional<IndexProbe> skipping;
    if (!slots_.clean || !files_known_) {
      auto second = ProbeIndex(index_path(), ProbeMode::kSkipCorruptedRecords, {});
      if (second.ok()) skipping = *std::move(second);
    }
    const absl::Status lost = CheckCommits(*probe, skipping, slots_, found_.files, /*accept_lost_commits=*/false);
    if (KindOf(lost) == ErrorKind::kLostCommits) {
      Finding finding{.level = Level::kError,
                      .code = "lost_commits",
                      .message = absl::StrCat(Message(lost), kRescue),
                      .file = index_path()};
      finding.repair = absl::StrCat("go on from what is there, with commit ", commit_ + 1);
      finding.repair_loses = true;
      Add(std::move(finding));
      problems_.back().mend_by_commit = true;
    }
    const absl::Status older = CheckCommits(*probe, skipping, slots_, found_.files, /*accept_lost_commits=*/true);
    if (!older.ok()) AddError("file_older", Message(older));
  }

  void CheckIndex() {
    if (!report_.beside_writer && !index_ready_) return;
    auto opened = Index::Open(index_path(), report_.beside_writer ? Index::Mode::kBesideWriter : Index::Mode::kReadOnly,
                              {.record_cache_bytes = 0});
    if (!opened.ok()) {
      index_ready_ = false;
      AddError("index", absl::StrCat(Message(opened.status()), kRescue), index_path());
      return;
    }
    index_ = *std::move(opened);
    if (report_.beside_writer) CheckCommitBesideWriter();
    CheckSuper();
    const auto rows = index_->ReadFiles();
    if (!rows.ok()) return AddError("index", Message(rows.status()), index_path());
    CheckFileRows(*rows);
    RowCheck check;
    const uint64_t errors_before = report_.errors;
    const absl::Status scanned = CheckRows(
        *index_, &check, [&](RowFinding found) { Add(std::move(found.finding), nullptr, std::move(found.mend)); });
    if (!scanned.ok()) AddError("index", absl::StrCat(Message(scanned), kRescue), index_path());
    report_.index_checked = scanned.ok();
    report_.names = check.names;
    report_.objects = check.objects;
    report_.inline_objects = check.inline_objects;
    const SpaceMap map = CheckSpace(*rows, check);
    if (scanned.ok() && report_.errors == errors_before) CheckFreemap(map, check);
    if (options_.deep) {
      const absl::Status files = index_->VerifyFiles();
      if (!files.ok()) AddError("index", absl::StrCat(Message(files), kRescue), index_path());
    }
  }

  // The slots were read before the index was opened, so the index must hold what they witness.
  void CheckCommitBesideWriter() {
    absl::StatusOr<CommitRow> commit = index_->ReadCommit();
    for (int i = 0; i < kFollowTries && commit.ok() && commit->commit < slots_.durable_commit; ++i) {
      if (!index_->CatchUp().ok()) continue;
      commit = index_->ReadCommit();
    }
    if (!commit.ok()) return AddError("index", Message(commit.status()), index_path());
    report_.commit = commit->commit;
    if (commit->commit < slots_.durable_commit) {
      AddError("lost_commits",
               absl::StrCat("the index ends at commit ", commit->commit, ", the data files witness commit ",
                            slots_.durable_commit),
               index_path());
    }
  }

  void CheckSuper() {
    const auto super = index_->ReadSuper();
    if (!super.ok()) return AddError("super", Message(super.status()), index_path());
    if (!super->has_value()) {
      Finding finding{.level = Level::kError, .code = "super", .message = "the index has no super row"};
      finding.file = index_path();
      finding.repair = "write one from STORE and the witness slots";
      SuperRow row;
      row.store_uuid = store_file_.store_uuid;
      row.epoch = slots_.epoch;
      return Add(std::move(finding), nullptr, [row](CommitBatch& batch) { batch.PutSuper(row); });
    }
    if ((*super)->store_uuid != store_file_.store_uuid) {
      AddError("super",
               absl::StrCat("the index belongs to store ", UuidText((*super)->store_uuid), ", not to ",
                            UuidText(store_file_.store_uuid)),
               index_path());
    }
    const auto access = CheckFeatures(index_path(), (*super)->ro_compat, (*super)->incompat);
    if (!access.ok()) AddError("super", Message(access.status()), index_path());
  }

  void CheckFileRows(const std::vector<FileRow>& rows) {
    if (!files_known_) return;
    std::set<uint32_t> known;
    for (const FileRow& row : rows) {
      known.insert(row.file_id);
      const auto file = std::ranges::find(found_.files, row.file_id,
                                          [](const FoundFile& candidate) { return candidate.label.file_id; });
      if (file != found_.files.end()) {
        if (!(file->file->row == row)) {
          AddError("label", "the label and the index disagree on device, size or data area", file->file->path);
        }
        if (file->slots.valid_count == 0) {
          AddError("witness", "no witness slot is valid: whether the index lost commits cannot be told from this file",
                   file->file->path);
        }
      } else if (const auto damaged = unreadable_.find(row.file_id); damaged != unreadable_.end()) {
        AddUnreadableLabel(row, damaged->second.first, damaged->second.second);
      } else {
        AddError("device_missing", absl::StrCat("data file ", row.file_id, " of device ", UuidText(row.device_uuid),
                                                " is not there (--device names a directory to look in)"));
      }
    }
    for (const FoundFile& file : found_.files) {
      if (!known.contains(file.label.file_id)) AddOrphan(file);
    }
    for (const auto& [number, damaged] : unreadable_) {
      if (!known.contains(number)) {
        Add({.level = Level::kWarning, .code = "orphan_file", .message = damaged.second, .file = damaged.first});
      }
    }
  }

  // The index knows all that a label says, but for its feature words.
  void AddUnreadableLabel(const FileRow& row, const std::string& path, const std::string& why) {
    Finding finding{.level = Level::kError, .code = "label", .message = why, .file = path};
    const auto info = disk_.Stat(path);
    if (!info.ok() || info->size != row.size) return Add(std::move(finding));
    finding.repair = "write the label anew from the index";
    Label label;
    label.file_id = row.file_id;
    label.label_seq = uint64_t{1} << 32;  // above whatever the damaged copies had
    label.store_uuid = store_file_.store_uuid;
    label.device_uuid = row.device_uuid;
    label.size = row.size;
    label.data_begin = row.data_begin;
    label.data_end = row.data_end;
    label.state = LabelState::kActive;
    const auto devices = index_->ReadDevices();
    for (const DeviceRow& device : devices.ok() ? *devices : std::vector<DeviceRow>()) {
      if (device.uuid != row.device_uuid) continue;
      label.tier_id = device.tier_id;
      label.tier_name = device.tier_name;
    }
    Add(std::move(finding), [this, path, label] { return RewriteLabel(path, label); });
  }

  void AddOrphan(const FoundFile& file) {
    Finding finding{.level = Level::kWarning,
                    .code = "orphan_file",
                    .message = "a data file that the index does not know",
                    .file = file.file->path};
    if (file.label.state == LabelState::kActive) return Add(std::move(finding));
    finding.message += file.label.state == LabelState::kJoining ? ": adding it did not finish"
                                                                : ": it was drained and removing it did not finish";
    finding.repair = "remove it";
    Add(std::move(finding), [this, path = file.file->path] { return disk_.Remove(path); });
  }

  // --- space ---

  SpaceMap CheckSpace(const std::vector<FileRow>& rows, const RowCheck& check) {
    std::vector<SpaceFile> files;
    for (const FileRow& row : rows) {
      files.push_back({row.file_id, row.data_begin / kUnitBytes, row.data_end / kUnitBytes});
    }
    auto bad = index_->ReadBadUnits();
    if (!bad.ok()) AddError("space", Message(bad.status()), index_path());
    SpaceMap map = BuildSpaceMap(files, check.owned, bad.ok() ? *std::move(bad) : std::vector<Extent>());
    for (const SpaceProblem& problem : map.problems) {
      Add({.level = Level::kError,
           .code = "space",
           .message = absl::StrCat(problem.message, " (verify tells which one is damaged)"),
           .file = PathOf(problem.extent.extent.file_id),
           .offset = problem.extent.extent.offset(),
           .generation = problem.extent.generation});
    }
    for (const FileUse& file : map.files) {
      report_.capacity += file.file.units() * kUnitBytes;
      report_.live += file.live_units * kUnitBytes;
      report_.free += file.free_units() * kUnitBytes;
      report_.bad += file.bad_units * kUnitBytes;
    }
    return map;
  }

  std::string PathOf(uint32_t file_id) const {
    for (const FoundFile& file : found_.files) {
      if (file.label.file_id == file_id) return file.file->path;
    }
    return "";
  }

  // The next open would believe it.
  void CheckFreemap(const SpaceMap& map, const RowCheck& check) {
    if (report_.beside_writer) return;
    const std::string path = JoinPath(path_, kFreemapName);
    const auto text = ReadFile(disk_, path, kFreemapBytesMax);
    if (absl::IsNotFound(text.status())) return;
    const auto freemap = text.ok() ? DecodeFreemap(*text) : absl::StatusOr<Freemap>(text.status());
    Finding finding{.level = Level::kWarning, .code = "freemap", .file = path};
    finding.repair = "remove it; the next open counts anew";
    const auto remove = [this, path] { return disk_.Remove(path); };
    if (!freemap.ok()) {
      finding.message = absl::StrCat(Message(freemap.status()), " (it is only a cache)");
      return Add(std::move(finding), remove);
    }
    const bool believed = slots_.clean && freemap->store_uuid == store_file_.store_uuid &&
                          freemap->epoch == slots_.epoch && freemap->commit == report_.commit;
    if (!believed) return;
    const std::string wrong = CompareFreemap(*freemap, map, check);
    if (wrong.empty()) return;
    finding.level = Level::kError;
    finding.message = absl::StrCat("the freemap of commit ", freemap->commit, " disagrees with the records: ", wrong);
    Add(std::move(finding), remove);
  }

  static std::string CompareFreemap(const Freemap& freemap, const SpaceMap& map, const RowCheck& check) {
    if (freemap.name_count != check.names) {
      return absl::StrCat(freemap.name_count, " names, there are ", check.names);
    }
    if (freemap.object_count != check.objects + check.distinct_inline) {
      return absl::StrCat(freemap.object_count, " objects, there are ", check.objects + check.distinct_inline);
    }
    if (freemap.orphans != check.nameless) return "objects without a name";
    const bool same_shared = std::ranges::equal(freemap.shared, check.shared, [](const auto& a, const auto& b) {
      return a.generation == b.first && a.names == b.second;
    });
    if (!same_shared) return "objects with more than one name";
    if (freemap.files.size() != map.files.size()) return "the count of data files";
    for (size_t i = 0; i < map.files.size(); ++i) {
      if (!(freemap.files[i].file == map.files[i].file)) return "the data area of a file";
      if (freemap.files[i].free != map.files[i].free) {
        return absl::StrCat("the free space of data file ", map.files[i].file.file_id);
      }
    }
    return "";
  }

  // --- repairs of the index ---

  absl::Status MendIndex(const std::vector<const Problem*>& problems) {
    // What an earlier process left visible must be durable before a commit relies on it.
    for (const FoundFile& file : found_.files) TS_RETURN_IF_ERROR(file.file->file->Sync());
    TS_ASSIGN_OR_RETURN(const auto index, Index::Open(index_path(), Index::Mode::kReadWrite, {}));
    const auto batch = index->NewBatch();
    for (const Problem* problem : problems) {
      if (problem->mend_rows) problem->mend_rows(*batch);
    }
    TS_RETURN_IF_ERROR(index->Commit(*batch, commit_ + 1));
    return index->Flush();
  }

  Disk& disk_;
  const std::string path_;
  const StructureCheckOptions& options_;
  const std::function<void(const Finding&)>& on_finding_;
  Report report_;
  std::vector<Problem> problems_;
  StoreFile store_file_;
  ShelfFiles found_;
  bool files_known_ = false;
  std::map<uint32_t, std::pair<std::string, std::string>> unreadable_;  // number -> path, why
  SlotSummary slots_;
  bool index_ready_ = false;  // it can be opened
  uint64_t commit_ = 0;       // the highest number that was ever promised
  std::unique_ptr<Index> index_;
};

}  // namespace

absl::StatusOr<StructureReport> CheckStructure(const std::string& path, const StructureCheckOptions& options) {
  const std::string shelf = AbsolutePath(path);
  std::unique_ptr<Disk> own_disk;
  Disk* disk = options.disk;
  if (disk == nullptr) {
    own_disk = NewLinuxDisk();
    disk = own_disk.get();
  }
  TS_ASSIGN_OR_RETURN(const PathInfo info, disk->Stat(shelf));
  if (info.kind != PathInfo::Kind::kDirectory) return absl::NotFoundError(absl::StrCat("no store at ", shelf));
  std::vector<std::unique_ptr<FileLock>> locks;
  if (options.repair) {
    // Not in any directory that somebody mistyped: a lock file is made where there is none.
    StructureCheckOptions looking = options;
    looking.repair = false;
    looking.on_finding = nullptr;
    const std::function<void(const Finding&)> silent;
    StructureChecker first(*disk, shelf, looking, silent);
    TS_RETURN_IF_ERROR(first.Check());
    TS_ASSIGN_OR_RETURN(locks, LockShelf(*disk, shelf, options.devices));
  }
  std::set<std::string> said;
  const std::function<void(const Finding&)> say = [&](const Finding& finding) {
    const bool is_new = said.insert(absl::StrCat(finding.code, "\n", finding.file, "\n", finding.message)).second;
    if (is_new && options.on_finding) options.on_finding(finding);
  };
  std::optional<StructureReport> first;
  uint64_t repaired = 0;
  for (int round = 0;; ++round) {
    StructureChecker checker(*disk, shelf, options, say);
    TS_RETURN_IF_ERROR(checker.Check());
    StructureReport& now = checker.report();
    if (!first.has_value()) first = now;
    now.notes = first->notes;
    now.warnings = first->warnings;
    now.errors_left = now.errors;
    now.errors = std::max(first->errors, now.errors);
    now.repaired = repaired;
    if (!options.repair || round == kRoundsMax) return now;
    TS_ASSIGN_OR_RETURN(const uint64_t mended, checker.Repair(options.before_repair));
    if (mended == 0) return now;
    repaired += mended;
  }
}

}  // namespace tensorshelf
