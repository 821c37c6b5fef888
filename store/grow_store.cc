// Steps, and what a crash after each leaves:
//   1  data files with the label "joining", a slot, their names durable      orphans
//   2  STORE with the new devices' hints                                     the same, and hints that lead to no file
//   3  one commit with the rows of all new files                             the capacity is there
//   4  their labels say "active"                                             the same

#include "store/grow_store.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "index/index.h"
#include "store/file_growth.h"
#include "store/open_checks.h"
#include "store/shelf_files.h"
#include "store/shelf_lock.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

// One growth. Confined to one thread.
class Grower {
 public:
  Grower(Disk& disk, const std::string& shelf, const GrowOptions& options)
      : disk_(disk), shelf_(shelf), options_(options) {}

  absl::StatusOr<GrowReport> Run() {
    TS_RETURN_IF_ERROR(Inspect());
    TS_RETURN_IF_ERROR(NewGrowth().NewDevices().status());  // before a lock file is made in one
    TS_ASSIGN_OR_RETURN(const auto locks, LockShelf(disk_, shelf_, options_.devices));
    TS_RETURN_IF_ERROR(Inspect());  // again, now that nobody else can change it
    TS_RETURN_IF_ERROR(CheckAgainstIndex());
    FileGrowth growth = NewGrowth();
    TS_RETURN_IF_ERROR(growth.Make(epoch_, commit_));
    TS_ASSIGN_OR_RETURN(const auto index, Index::Open(index_path(), Index::Mode::kReadWrite, {}));
    const auto batch = index->NewBatch();
    growth.PutRows(*batch);
    GrowReport report = growth.Report();
    report.commit = commit_ + 1;
    TS_RETURN_IF_ERROR(index->Commit(*batch, report.commit));
    TS_RETURN_IF_ERROR(index->Flush());
    TS_RETURN_IF_ERROR(growth.Activate());
    return report;
  }

 private:
  std::string index_path() const { return JoinPath(shelf_, kIndexName); }

  FileGrowth NewGrowth() const {
    std::vector<ExistingFile> existing;
    for (const FoundFile& file : found_.files) existing.push_back({file.file->path, file.file->directory, file.label});
    return FileGrowth(disk_, shelf_, options_, std::move(existing), found_.store_file);
  }

  absl::Status Inspect() {
    TS_ASSIGN_OR_RETURN(found_, FindShelfFiles(disk_, shelf_, {.extra_directories = options_.devices}));
    if (found_.files.empty() && !found_.damaged.empty()) return found_.damaged.front().status;
    if (found_.files.empty()) return absl::DataLossError(absl::StrCat(shelf_, " has no data file"));
    for (const FoundFile& file : found_.files) {
      if (file.access == FeatureAccess::kReadOnly) {
        return absl::FailedPreconditionError(
            absl::StrCat(file.file->path, " has features that this version does not know: it must not change it"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckAgainstIndex() {
    for (const FoundFile& file : found_.files) TS_RETURN_IF_ERROR(file.file->file->Sync());
    const SlotSummary slots = SummarizeSlots(found_.files);
    TS_ASSIGN_OR_RETURN(const IndexProbe probe, ProbeIndex(index_path(), ProbeMode::kPointInTime, {}));
    if (!probe.exists) return absl::DataLossError(absl::StrCat("the index ", index_path(), " is missing"));
    std::optional<IndexProbe> skipping;
    if (!slots.clean) {
      TS_ASSIGN_OR_RETURN(skipping, ProbeIndex(index_path(), ProbeMode::kSkipCorruptedRecords, {}));
    }
    TS_RETURN_IF_ERROR(CheckCommits(probe, skipping, slots, found_.files, /*accept_lost_commits=*/false));
    TS_ASSIGN_OR_RETURN(const std::vector<std::string> orphans, MatchFileRows(found_, probe.files, /*degraded=*/false));
    if (!orphans.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(orphans.front(), " is a data file that the index does not know; see fsck"));
    }
    commit_ = std::max(probe.commit.commit, slots.durable_commit);
    epoch_ = slots.epoch;
    return absl::OkStatus();
  }

  Disk& disk_;
  const std::string& shelf_;
  const GrowOptions& options_;
  ShelfFiles found_;
  uint64_t commit_ = 0;  // the newest
  uint64_t epoch_ = 0;
};

}  // namespace

absl::StatusOr<GrowReport> GrowStore(const std::string& path, const GrowOptions& options) {
  std::unique_ptr<Disk> own_disk;
  if (options.disk == nullptr) own_disk = NewLinuxDisk();
  const std::string shelf = AbsolutePath(path);
  GrowOptions absolute = options;
  for (std::string& device : absolute.devices) device = AbsolutePath(device);
  return Grower(options.disk == nullptr ? *own_disk : *options.disk, shelf, absolute).Run();
}

}  // namespace tensorshelf
