// Which bytes of a stored tensor an index touches. Pure arithmetic: no torch, no store.
//
// Example: shape (1000, 64), 4-byte items, index [10:20, 0:8]. Cutting at dimension 1 means 10 runs of 32 bytes,
// cutting at dimension 0 means one run of 2560 bytes, of which a strided copy keeps the wanted columns. A run costs
// about as much as 32 KiB of reading, so the second is chosen.

#ifndef TENSORSHELF_PYTHON_LIBTORCH_SLICE_PLAN_H_
#define TENSORSHELF_PYTHON_LIBTORCH_SLICE_PLAN_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace tensorshelf {

// One component of an index, with Python's meaning: negative numbers count from the end, slice bounds are clipped.
struct IndexItem {
  enum class Kind { kInteger, kSlice, kEllipsis, kNewAxis };
  Kind kind = Kind::kSlice;
  int64_t integer = 0;
  std::optional<int64_t> start = std::nullopt, stop = std::nullopt;
  int64_t step = 1;  // positive
};

// A run of bytes of the object.
struct ByteRun {
  uint64_t offset = 0;
  uint64_t length = 0;
  friend bool operator==(const ByteRun&, const ByteRun&) = default;
};

struct SlicePlan {
  // Read one behind the other, these runs are a tensor of `read_shape` in C order.
  std::vector<ByteRun> runs;
  std::vector<uint64_t> read_shape;
  // What to keep of it: in each dimension `count` items from `start`, `step` apart.
  struct Keep {
    int64_t start = 0, count = 0, step = 1;
  };
  std::vector<Keep> keep;
  bool keeps_all = true;  // then what was read, in another shape, is the result
  // Without the dimensions of integers, with those of new axes.
  std::vector<uint64_t> result_shape;
};

// OutOfRange: an integer is out of bounds, or there are more components than dimensions. InvalidArgument: a step below
// 1, two ellipses.
absl::StatusOr<SlicePlan> PlanSlice(std::span<const uint64_t> shape, uint64_t item_bytes,
                                    std::span<const IndexItem> index);

// The rows of the first dimension with these numbers, in this order; a number may come again. OutOfRange as above.
absl::StatusOr<SlicePlan> PlanRows(std::span<const uint64_t> shape, uint64_t item_bytes, std::span<const int64_t> rows);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_LIBTORCH_SLICE_PLAN_H_
