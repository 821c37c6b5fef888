// Live objects go to other extents: a copy, a commit and a free, like a put, but under the same generation.
//
// What a crash after each step leaves:
//   1  lease on the old place; new space reserved                          nothing: no record names the new space
//   2  blocks read, compared with their sums, written to the new space;
//      where the object has a trailer, a new one with the new record       the same
//   3  commit: a slot and fdatasync of each file written to                the same, durable
//   4  commit: one synced batch, the row with place_seq + 1                the old place or the new one, whole
//   5  publish; extents that the new record does not name are parked       the new place
//   6  older guards, views and leases are gone: they are free, and written
//      over                                                                the new place; of two trailers of one
//                                                                          generation the higher place_seq wins
// Content, generation, fingerprint, sums and names stay. A generation moves with all of its names, so clones go on
// sharing. The commit thread moves nothing whose record is another one than was copied: a put, a delete or another move
// wins, and the new space goes back. A rename or a clone is no such change. An object whose bytes do not match its
// sums, or cannot be read, stays where it is.

#ifndef TENSORSHELF_STORE_MOVE_H_
#define TENSORSHELF_STORE_MOVE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "index/index.h"
#include "store/commit_queue.h"
#include "store/device_set.h"
#include "store/extent_allocator.h"
#include "store/parked_space.h"
#include "store/reader.h"
#include "store/staged_object.h"
#include "store/stager.h"

namespace tensorshelf {

struct MoveRequest {
  std::string name;
  std::optional<uint32_t> file_id = std::nullopt;  // the data file to move to; absent: as for a put
};

enum class MoveFate {
  kMoved,
  kLost,        // put again, deleted or moved by somebody else meanwhile
  kDamaged,     // its bytes do not match their sums, or could not be read; it stays where it is
  kNoRoom,      // there is no place for it; it stays where it is
  kNotMovable,  // inline, ephemeral, or of features that this build does not know
};
const char* MoveFateName(MoveFate fate);

struct MoveResult {
  MoveFate fate = MoveFate::kMoved;
  uint64_t bytes = 0;  // copied
  absl::Status why;    // of kDamaged, kNoRoom and kNotMovable
};

// One object on its way to another place. Movable; thread-compatible.
struct PlannedMove {
  std::string name;                 // for messages, and for the trailer
  Object source;                    // leased; given back once it is copied
  ObjectRecord to;                  // the source's record with another place, and place_seq + 1
  std::vector<bool> columns_moved;  // which of the columns have new extents
  ReservedSpace space;              // what `to` names and the source's record does not
  MoveResult result;

  uint64_t moved_bytes() const;  // of the columns that move
};

// OK, or why an object's record cannot be moved.
absl::Status CheckMovable(const ObjectRecord& record);
// `to` as `from` with place_seq + 1; the new place is still to be filled in. `from` is movable.
ObjectRecord NextPlace(const ObjectRecord& from);
// Units that the trailer of `to` needs under that name; 0 where the object has none.
uint64_t TrailerUnitsOf(const ObjectRecord& to, const std::string& name);

// The whole of an object of one column in one run, its trailer right behind its data.
void PlaceInRun(const Extent& run, PlannedMove& move);

// Plans a move to where a put would go, or into one file. With `away_from`, only columns that lie in those files move.
// ResourceExhausted: no room; what was reserved goes back with `move`.
struct PlaceOptions {
  std::optional<uint32_t> file_id = std::nullopt;
  std::vector<uint32_t> away_from = {};
};
absl::Status PlaceAnew(ExtentAllocator& allocator, const ObjectRecord& from, const PlaceOptions& options,
                       PlannedMove& move);

// Carries out planned moves. Thread-safe.
class Mover {
 public:
  struct Context {
    DeviceSet* devices = nullptr;
    Index* index = nullptr;
    Reader* reader = nullptr;
    Stager* stager = nullptr;
    CommitQueue* queue = nullptr;
    ParkedSpace* parked = nullptr;
    Uuid store_uuid{};
  };
  explicit Mover(Context context) : context_(std::move(context)) {}

  // Copies all of `moves`, 8 MiB of memory at a time, and commits them together; each says in its result what became of
  // it. `copied` is told of every piece and returns false to stop: Cancelled, and nothing was moved. Another error is
  // of the device written to, or of the commit: nothing was moved either, or, of a commit, its outcome is unknown.
  absl::Status Run(std::span<PlannedMove> moves, Priority priority, const std::function<bool(uint64_t bytes)>& copied);

 private:
  struct Range;
  absl::Status CopyRanges(std::span<PlannedMove> moves, std::span<const Range> ranges, Priority priority);
  absl::Status ReadRanges(std::span<PlannedMove> moves, std::span<const Range> ranges, std::byte* memory,
                          Priority priority);
  absl::Status WriteTrailer(PlannedMove& move, Priority priority);
  absl::Status Write(std::span<PlannedMove> moves, std::vector<Segment> segments, std::vector<DataFile*> owners,
                     const std::vector<size_t>& move_of_segment, Priority priority);
  static std::vector<Range> RangesOf(std::span<const PlannedMove> moves);

  const Context context_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_MOVE_H_
