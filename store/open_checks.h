// The comparisons of an open: what the index says against what the data files' slots say. Pure.

#ifndef TENSORSHELF_STORE_OPEN_CHECKS_H_
#define TENSORSHELF_STORE_OPEN_CHECKS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "index/index.h"
#include "store/shelf_files.h"

namespace tensorshelf {

// W, E and whether every file was closed cleanly after its last write.
struct SlotSummary {
  uint64_t durable_commit = 0;  // W: the highest commit that some slot calls durable
  uint64_t epoch = 0;           // E
  bool clean = true;
};
SlotSummary SummarizeSlots(const std::vector<FoundFile>& files);

// `point_in_time` is P, `skip_corrupted` S (absent after a clean close). Refuses, with the numbers:
//   P < W       acknowledged commits are missing from the index
//   S >= P + 2  damage inside the log: with one commit in flight at most one batch can be torn legally
//   seq < "fsync/f" of a file: that data file is older than the index
// The first two are kLostCommits and pass when `accept_lost_commits`; the third is DataLoss.
absl::Status CheckCommits(const IndexProbe& point_in_time, const std::optional<IndexProbe>& skip_corrupted,
                          const SlotSummary& slots, const std::vector<FoundFile>& files, bool accept_lost_commits);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_OPEN_CHECKS_H_
