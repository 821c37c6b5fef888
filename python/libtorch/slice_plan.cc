#include "python/libtorch/slice_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

// Reading this many more bytes costs about as much as one more run (an operation, two partly used checksum blocks).
constexpr uint64_t kRunCostBytes = 32 << 10;

// The items that an index selects in one dimension of the stored tensor.
struct Selected {
  int64_t start = 0, count = 0, step = 1;
  bool drops_dimension = false;

  // From the first selected item to the last one.
  uint64_t bounding_count() const { return count == 0 ? 0 : static_cast<uint64_t>((count - 1) * step + 1); }
  bool is_whole(uint64_t dimension) const { return step == 1 && static_cast<uint64_t>(count) == dimension; }
};

absl::StatusOr<int64_t> InBounds(int64_t number, uint64_t dimension_size, size_t dimension) {
  const int64_t size = static_cast<int64_t>(dimension_size);
  if (number >= -size && number < size) return number < 0 ? number + size : number;
  return absl::OutOfRangeError(
      absl::StrCat("index ", number, " is out of bounds for dimension ", dimension, " with size ", size));
}

absl::StatusOr<Selected> Select(const IndexItem& item, uint64_t dimension_size, size_t dimension) {
  if (item.kind == IndexItem::Kind::kInteger) {
    TS_ASSIGN_OR_RETURN(const int64_t start, InBounds(item.integer, dimension_size, dimension));
    return Selected{.start = start, .count = 1, .step = 1, .drops_dimension = true};
  }
  if (item.step < 1) return absl::InvalidArgumentError("slice step must be greater than zero");
  const int64_t size = static_cast<int64_t>(dimension_size);
  const auto clip = [size](int64_t bound) { return std::clamp(bound < 0 ? bound + size : bound, int64_t{0}, size); };
  const int64_t start = clip(item.start.value_or(0));
  const int64_t length = std::max(clip(item.stop.value_or(size)) - start, int64_t{0});
  return Selected{.start = start, .count = length == 0 ? 0 : (length - 1) / item.step + 1, .step = item.step};
}

// One Selected per dimension of the tensor; result_shape besides.
absl::StatusOr<std::vector<Selected>> SelectAll(std::span<const uint64_t> shape, std::span<const IndexItem> index,
                                                std::vector<uint64_t>* result_shape) {
  const auto is = [](IndexItem::Kind kind) { return [kind](const IndexItem& item) { return item.kind == kind; }; };
  const size_t ellipses = std::count_if(index.begin(), index.end(), is(IndexItem::Kind::kEllipsis));
  const size_t new_axes = std::count_if(index.begin(), index.end(), is(IndexItem::Kind::kNewAxis));
  if (ellipses > 1) return absl::InvalidArgumentError("an index can only have a single ellipsis ('...')");
  const size_t given = index.size() - ellipses - new_axes;
  if (given > shape.size()) {
    return absl::OutOfRangeError(absl::StrCat("too many indices for tensor of dimension ", shape.size()));
  }
  std::vector<Selected> selected;
  const auto add_whole = [&] {
    const uint64_t size = shape[selected.size()];
    selected.push_back({.start = 0, .count = static_cast<int64_t>(size), .step = 1});
    result_shape->push_back(size);
  };
  for (const IndexItem& item : index) {
    if (item.kind == IndexItem::Kind::kNewAxis) {
      result_shape->push_back(1);
    } else if (item.kind == IndexItem::Kind::kEllipsis) {
      for (size_t i = given; i < shape.size(); ++i) add_whole();
    } else {
      TS_ASSIGN_OR_RETURN(const Selected one, Select(item, shape[selected.size()], selected.size()));
      selected.push_back(one);
      if (!one.drops_dimension) result_shape->push_back(static_cast<uint64_t>(one.count));
    }
  }
  while (selected.size() < shape.size()) add_whole();
  return selected;
}

// Bytes of one item of each dimension: inner[i] = item_bytes * shape[i + 1] * ... ; inner[ndim] stands for a single
// value.
std::vector<uint64_t> InnerBytes(std::span<const uint64_t> shape, uint64_t item_bytes) {
  std::vector<uint64_t> inner(shape.size() + 1, item_bytes);
  for (size_t i = shape.size(); i > 0; --i) inner[i - 1] = i == shape.size() ? item_bytes : inner[i] * shape[i];
  return inner;
}

// The dimension at which runs begin: before it every selected item is a run's start, in it the bounding range is read,
// behind it everything. The number of dimensions means a run per value.
size_t CheapestCut(std::span<const uint64_t> shape, std::span<const uint64_t> inner,
                   std::span<const Selected> selected) {
  size_t restricted = 0;  // the last dimension that is not whole, plus 1
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!selected[i].is_whole(shape[i])) restricted = i + 1;
  }
  size_t best = 0;
  uint64_t best_cost = UINT64_MAX;
  uint64_t run_count = 1;
  for (size_t cut = 0; cut <= restricted; ++cut) {
    const uint64_t run_bytes = cut == shape.size() ? inner[cut] : selected[cut].bounding_count() * inner[cut];
    const uint64_t cost = run_count * (run_bytes + kRunCostBytes);
    if (cost < best_cost) {
      best = cut;
      best_cost = cost;
    }
    if (cut < shape.size()) run_count *= static_cast<uint64_t>(selected[cut].count);
  }
  return best;
}

void AddRun(std::vector<ByteRun>* runs, uint64_t offset, uint64_t length) {
  if (!runs->empty() && runs->back().offset + runs->back().length == offset) {
    runs->back().length += length;
  } else {
    runs->push_back({offset, length});
  }
}

// All combinations of the items selected before `cut`, in C order, each followed by `length` bytes.
void AddRuns(std::span<const uint64_t> inner, std::span<const Selected> selected, size_t dimension, size_t cut,
             uint64_t offset, uint64_t length, std::vector<ByteRun>* runs) {
  if (dimension == cut) {
    AddRun(runs, offset, length);
    return;
  }
  const Selected& here = selected[dimension];
  for (int64_t i = 0; i < here.count; ++i) {
    AddRuns(inner, selected, dimension + 1, cut,
            offset + static_cast<uint64_t>(here.start + i * here.step) * inner[dimension], length, runs);
  }
}

}  // namespace

absl::StatusOr<SlicePlan> PlanSlice(std::span<const uint64_t> shape, uint64_t item_bytes,
                                    std::span<const IndexItem> index) {
  SlicePlan plan;
  TS_ASSIGN_OR_RETURN(const std::vector<Selected> selected, SelectAll(shape, index, &plan.result_shape));
  const std::vector<uint64_t> inner = InnerBytes(shape, item_bytes);
  const bool is_empty = std::any_of(selected.begin(), selected.end(), [](const Selected& s) { return s.count == 0; });
  const size_t cut = is_empty ? 0 : CheapestCut(shape, inner, selected);
  for (size_t i = 0; i < shape.size(); ++i) {
    const Selected& here = selected[i];
    const uint64_t read = i < cut ? here.count : i == cut ? here.bounding_count() : shape[i];
    plan.read_shape.push_back(is_empty ? static_cast<uint64_t>(here.count) : read);
    if (is_empty || i < cut) {
      plan.keep.push_back({.start = 0, .count = here.count, .step = 1});
    } else {
      plan.keep.push_back({.start = i == cut ? 0 : here.start, .count = here.count, .step = here.step});
    }
    plan.keeps_all = plan.keeps_all && static_cast<uint64_t>(here.count) == plan.read_shape.back();
  }
  if (is_empty) return plan;
  const uint64_t start = cut == shape.size() ? 0 : static_cast<uint64_t>(selected[cut].start) * inner[cut];
  const uint64_t length = cut == shape.size() ? inner[cut] : selected[cut].bounding_count() * inner[cut];
  AddRuns(inner, selected, 0, cut, start, length, &plan.runs);
  return plan;
}

absl::StatusOr<SlicePlan> PlanRows(std::span<const uint64_t> shape, uint64_t item_bytes,
                                   std::span<const int64_t> rows) {
  if (shape.empty()) return absl::OutOfRangeError("too many indices for tensor of dimension 0");
  SlicePlan plan;
  const uint64_t row_bytes = InnerBytes(shape, item_bytes).front();
  for (const int64_t row : rows) {
    TS_ASSIGN_OR_RETURN(const int64_t number, InBounds(row, shape[0], 0));
    if (row_bytes != 0) AddRun(&plan.runs, static_cast<uint64_t>(number) * row_bytes, row_bytes);
  }
  plan.read_shape.assign(shape.begin(), shape.end());
  plan.read_shape[0] = rows.size();
  plan.result_shape = plan.read_shape;
  for (const uint64_t size : plan.read_shape) plan.keep.push_back({.start = 0, .count = static_cast<int64_t>(size)});
  return plan;
}

}  // namespace tensorshelf
