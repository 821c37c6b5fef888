#include "store/open_checks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/mutation.h"
#include "store/errors.h"

namespace tensorshelf {

SlotSummary SummarizeSlots(const std::vector<FoundFile>& files) {
  SlotSummary summary;
  for (const FoundFile& file : files) {
    if (file.file->file == nullptr) continue;
    summary.durable_commit = std::max(summary.durable_commit, file.slots.durable_commit_max);
    summary.epoch = std::max(summary.epoch, file.slots.epoch_max);
    if (!file.slots.newest.has_value() || !file.slots.newest->clean || file.slots.damaged_count > 0)
      summary.clean = false;
  }
  return summary;
}

absl::Status CheckCommits(const IndexProbe& point_in_time, const std::optional<IndexProbe>& skip_corrupted,
                          const SlotSummary& slots, const std::vector<FoundFile>& files, bool accept_lost_commits) {
  const uint64_t seen = point_in_time.commit.commit;
  if (!accept_lost_commits && seen < slots.durable_commit && !TS_MUTATE(skip_witness_check)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLostCommits,
                     absl::StrCat("the index ends at commit ", seen, ", the data files witness commit ",
                                  slots.durable_commit, ": ", slots.durable_commit - seen,
                                  " acknowledged commits are missing (restore an index backup, or accept the loss)"));
  }
  const bool gap = skip_corrupted.has_value() && skip_corrupted->commit.commit >= seen + 2;
  if (!accept_lost_commits && gap && !TS_MUTATE(skip_two_mode_check)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLostCommits,
                     absl::StrCat("the index's log is damaged after commit ", seen, ", and commits up to ",
                                  skip_corrupted->commit.commit,
                                  " lie behind the damage (restore an index backup, or accept the loss)"));
  }
  for (const auto& [file_id, slot_seq] : point_in_time.fsync_slots) {
    for (const FoundFile& file : files) {
      if (file.file->row.file_id != file_id || file.file->file == nullptr) continue;
      if (file.file->slot_seq < slot_seq && !TS_MUTATE(skip_slot_check)) {
        return absl::DataLossError(absl::StrCat(file.file->path, " is older than the index: its newest slot is ",
                                                file.file->slot_seq, ", the index relied on slot ", slot_seq));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace tensorshelf
