// Who may write where: hands out runs of units of the data files, and counts every unit in exactly one of seven states.
//
// Life of a unit:
//     free --Reserve--> reserved --(commit)--> live --(drop)--> parked --(no reader left)--> free
//                          |  \--> scratch (ephemeral object) --> free
//                          |--> free (the put failed before its commit)
//                          \--> limbo (commit outcome unknown) --> free or live after a reopen    any --> bad
// Invariants, checked at every change and in release builds:
//   1. The seven counters of a file sum to its capacity; the counter of kFree equals the units in the free map.
//   2. Free extents of a file do not overlap, do not touch (they are coalesced) and lie inside the file's data area.
//   3. What is moved or freed is not free already. Only the free units have a map here: for the other states the
//   records
//      are the map, and the allocator only counts.
// Policy: best fit by size. Objects of 1 MiB and more start on 64 KiB and are cut from the low end of a hole, small
// ones from the high end, so that the two do not mix. Space below a file's fill mark (already written once, so that a
// write does not convert extents) is preferred when it fits.

#ifndef TENSORSHELF_STORE_EXTENT_ALLOCATOR_H_
#define TENSORSHELF_STORE_EXTENT_ALLOCATOR_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "index/record.h"
#include "store/free_runs.h"

namespace tensorshelf {

enum class SpaceState : uint8_t { kReserved, kLive, kParked, kFree, kScratch, kLimbo, kBad };
inline constexpr size_t kSpaceStateCount = 7;
const char* SpaceStateName(SpaceState state);

// Units per state.
struct SpaceCounters {
  std::array<uint64_t, kSpaceStateCount> units{};

  uint64_t operator[](SpaceState state) const { return units[static_cast<size_t>(state)]; }
  uint64_t& operator[](SpaceState state) { return units[static_cast<size_t>(state)]; }
  uint64_t total() const;
  friend bool operator==(const SpaceCounters&, const SpaceCounters&) = default;
};

// The data area of one file, in units: [first_unit, end_unit).
struct SpaceFile {
  uint32_t file_id = 0;
  uint64_t first_unit = 0;
  uint64_t end_unit = 0;

  uint64_t units() const { return end_unit - first_unit; }
  friend bool operator==(const SpaceFile&, const SpaceFile&) = default;
};

inline constexpr uint64_t kLargeObjectBytes = uint64_t{1} << 20;  // from here on: `large`
inline constexpr uint32_t kLargeAlignUnits = 16;                  // 64 KiB
inline constexpr uint32_t kExtentsPerColumnMax = 4096;

struct ReserveRequest {
  uint64_t units = 0;  // > 0
  std::optional<uint32_t> file_id =
      std::nullopt;         // absent: the file with the largest free share that has a run; then any
  bool large = false;       // the object has kLargeObjectBytes or more
  bool allow_split = true;  // several extents when there is no run of `units`
  uint32_t extents_max = kExtentsPerColumnMax;
};

// For a move to a better place in the same file: a large object goes down, a small one up, so that free space ends up
// in one piece between the two.
struct BetterPlace {
  uint64_t units = 0;  // > 0
  bool large = false;
  Extent leaving;                 // the run that will be free
  bool neighbour_leaves = false;  // what touches `leaving` on the side of that free space is about to be free too
};

// What one file looks like now.
struct FileSpace {
  SpaceFile file;
  SpaceCounters counters;
  bool read_only = false;    // or draining: it takes no new data
  uint64_t filled_unit = 0;  // units below it were written once
  uint64_t free_extents = 0;
  uint64_t largest_free_units = 0;
};

// An extent that a record names, for Rebuild.
struct OwnedExtent {
  uint64_t generation = 0;
  Extent extent;
};

// Thread-safe. Blocks only for its own mutex, which is a leaf: nothing else is locked under it, no I/O is done under
// it.
class ExtentAllocator {
 public:
  ExtentAllocator() = default;
  ExtentAllocator(const ExtentAllocator&) = delete;
  ExtentAllocator& operator=(const ExtentAllocator&) = delete;

  // Everything that `owned` names is live, the rest free. DataLoss, and nothing else, for an extent outside its file,
  // of no units or in an unknown file, and for two extents that overlap: names both generations, the file and the
  // units.
  static absl::StatusOr<std::unique_ptr<ExtentAllocator>> Rebuild(std::span<const SpaceFile> files,
                                                                  std::vector<OwnedExtent> owned);
  // The counterpart of FreeExtents: what `free` names is free, the rest live. DataLoss as in Rebuild.
  static absl::StatusOr<std::unique_ptr<ExtentAllocator>> FromFreeExtents(std::span<const SpaceFile> files,
                                                                          std::vector<Extent> free);

  // All of it free. InvalidArgument: empty, over 2^32 - 1 units, or beyond a byte offset of 2^63. AlreadyExists: known
  // id.
  absl::Status AddFile(const SpaceFile& file);
  // FailedPrecondition unless every unit is free or bad; NotFound.
  absl::Status RemoveFile(uint32_t file_id);
  // No new reservations from this file, for good; its space can still be moved and freed. NotFound.
  absl::Status SetReadOnly(uint32_t file_id);
  // No new reservations from this file while it is true. NotFound.
  absl::Status SetDraining(uint32_t file_id, bool draining);
  // Units below `unit` are preferred from now on. NotFound.
  absl::Status SetFilled(uint32_t file_id, uint64_t unit);

  // free -> reserved. In the order of the object's bytes. ResourceExhausted names what was wanted, what is free and the
  // largest run; FailedPrecondition: that file is read-only; NotFound: no such file; InvalidArgument: no units.
  absl::StatusOr<std::vector<Extent>> Reserve(const ReserveRequest& request);
  // free -> reserved: one run of the file of request.leaving, beyond it on the object's side, in the smallest hole that
  // takes it. Statuses as Reserve; ResourceExhausted also when free space would not lie better afterwards: when
  // `leaving` does not touch the free space in the middle and the free runs would be worth less together.
  absl::StatusOr<Extent> ReserveBetter(const BetterPlace& request);
  // Space for many small objects: element i belongs to units_each[i] (each > 0). One contiguous run, cut up in order,
  // where there is one; else as few runs as halving the batch finds. All or nothing. Statuses as Reserve.
  absl::StatusOr<std::vector<std::vector<Extent>>> ReserveRun(std::span<const uint64_t> units_each,
                                                              std::optional<uint32_t> file_id);
  // free -> reserved for every free unit of [first_unit, end_unit) of a file: for zero-filling in the background, and
  // for taking known bad units out. Empty when nothing there is free. Also from a read-only file. NotFound.
  absl::StatusOr<std::vector<Extent>> ReserveFreeIn(uint32_t file_id, uint64_t first_unit, uint64_t end_unit);

  // Changes the state of extents that are in state `from`; all in one step. kFree as `from` is not possible (Reserve
  // does that), as `to` only from reserved, scratch, parked and limbo. A broken rule, an unknown file, a range outside
  // it, a unit that is free, or more units than are counted in `from` is a bug of the caller and aborts.
  void Move(std::span<const Extent> extents, SpaceState from, SpaceState to);

  SpaceCounters totals() const;
  uint64_t capacity_units() const;
  std::vector<FileSpace> files() const;  // by file_id
  absl::StatusOr<FileSpace> file(uint32_t file_id) const;
  // All free extents by (file, unit).
  std::vector<Extent> FreeExtents() const;
  // 0 = the free space of each file is one run, 1 = nothing but single units. A free extent is worth 10 % more a unit
  // with every doubling of its length; the score is (ideal - actual) / (ideal - worst). From a histogram: constant
  // time.
  double FragmentationScore() const;

 private:
  struct FileState {
    SpaceFile file;
    SpaceCounters counters;
    bool read_only = false;
    bool draining = false;
    FreeRuns free;

    bool takes_data() const { return !read_only && !draining; }
  };
  using Runs = std::vector<Extent>;

  FileState* FindLocked(uint32_t file_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<FileState*>> CandidatesLocked(std::optional<uint32_t> file_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<std::pair<FileState*, UnitRun>> FindRunLocked(const FreeRuns::Fit& fit,
                                                              std::span<FileState* const> files)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Runs> ReserveOneRunLocked(const ReserveRequest& request, std::span<FileState* const> files)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Runs> ReserveSplitLocked(const ReserveRequest& request, std::span<FileState* const> files)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Runs> ReserveLocked(const ReserveRequest& request, std::span<FileState* const> files)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReserveBatchLocked(std::span<const uint64_t> units_each, std::span<FileState* const> files,
                                  std::vector<Runs>& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Extent TakeLocked(FileState& state, uint64_t first_unit, uint64_t units) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountLocked(FileState& state, uint64_t units, SpaceState from, SpaceState to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status NoSpaceLocked(const ReserveRequest& request, std::span<FileState* const> files)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static FileSpace Describe(const FileState& state);

  mutable absl::Mutex mutex_;
  absl::btree_map<uint32_t, FileState> files_ ABSL_GUARDED_BY(mutex_);
  SpaceCounters totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_EXTENT_ALLOCATOR_H_
