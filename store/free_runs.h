// The free runs of one data file, by place and by size: the map under ExtentAllocator. It knows units, not states.

#ifndef TENSORSHELF_STORE_FREE_RUNS_H_
#define TENSORSHELF_STORE_FREE_RUNS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"

namespace tensorshelf {

// A run of units inside one file.
struct UnitRun {
  uint64_t first = 0;
  uint64_t units = 0;

  uint64_t end() const { return first + units; }
  friend bool operator==(const UnitRun&, const UnitRun&) = default;
};

// Thread-compatible. Runs never overlap and never touch: neighbours are joined when a run is added. A broken rule
// (adding what is free, taking what is not) aborts.
class FreeRuns {
 public:
  // Where in the hole that fits best a run is cut.
  struct Fit {
    uint64_t units = 0;
    uint32_t align = 1;    // the run's first unit is a multiple of this (a power of two)
    bool low_end = false;  // cut from the low end of the hole; else from the high end
  };

  FreeRuns() = default;
  // All of `runs` at once: sorted by place, not touching, not empty.
  explicit FreeRuns(std::span<const UnitRun> runs);

  // The place for a run of fit.units: in the smallest hole that takes it, below the fill mark if any hole there does. A
  // hole that is long enough but misaligned is passed over. Takes nothing.
  std::optional<UnitRun> FindBest(const Fit& fit) const;
  // The place for a run inside `range`: in the smallest hole there that takes it, whatever the fill mark, and that
  // hole. Takes nothing.
  struct PlaceInHole {
    UnitRun place, hole;
  };
  std::optional<PlaceInHole> FindWithin(const Fit& fit, const UnitRun& range) const;
  // Units of the free run that ends at `unit`, and of the one that begins there.
  uint64_t UnitsBefore(uint64_t unit) const;
  uint64_t UnitsAfter(uint64_t unit) const;
  // The longest hole, or units 0 when there is none.
  UnitRun Largest() const;
  // The part of `hole` that starts on a multiple of `align` and is a multiple of it long; units 0 when there is none.
  static UnitRun AlignedPart(const UnitRun& hole, uint32_t align);

  void Add(const UnitRun& run);
  void Take(const UnitRun& run);
  bool Overlaps(const UnitRun& run) const;
  // The free parts of `range`, by place.
  std::vector<UnitRun> Within(const UnitRun& range) const;

  void SetFilled(uint64_t unit);
  uint64_t filled() const { return filled_; }
  uint64_t units() const { return units_; }
  size_t size() const { return by_place_.size(); }

  // Calls visit(UnitRun) by place.
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (const auto& [first, units] : by_place_) visit(UnitRun{first, units});
  }
  // Calls visit(UnitRun) by falling length until it returns false.
  template <typename Visit>
  void ForEachByLength(Visit visit) const {
    auto below = below_mark_.rbegin();
    auto above = above_mark_.rbegin();
    while (below != below_mark_.rend() || above != above_mark_.rend()) {
      const bool take_below = above == above_mark_.rend() || (below != below_mark_.rend() && *below > *above);
      const auto& [units, first] = take_below ? *below++ : *above++;
      if (!visit(UnitRun{first, units})) return;
    }
  }

  // The worth of the free runs: each unit 1, and 10 % more with every doubling of its run's length.
  double Worth() const;
  // The same for one run of that many units.
  static double WorthOfRun(double units);

 private:
  using BySize = absl::btree_set<std::pair<uint64_t, uint64_t>>;  // (units, first)
  struct LengthClass {
    uint64_t runs = 0;
    uint64_t units = 0;
  };

  BySize& SizesOf(const UnitRun& run) { return run.end() <= filled_ ? below_mark_ : above_mark_; }
  void Insert(const UnitRun& run);
  void Erase(const UnitRun& run);
  std::optional<UnitRun> StraddlesMark() const;
  static std::optional<UnitRun> Cut(const UnitRun& hole, const Fit& fit);
  static std::optional<UnitRun> FindIn(const BySize& sizes, const Fit& fit);

  absl::btree_map<uint64_t, uint64_t> by_place_;  // first -> units
  BySize below_mark_;                             // runs that end at the fill mark or before
  BySize above_mark_;                             // all others, the one across the mark included
  std::array<LengthClass, 64> classes_{};         // by floor(log2(units))
  uint64_t units_ = 0;
  uint64_t filled_ = 0;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_FREE_RUNS_H_
