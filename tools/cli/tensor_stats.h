// What the values of a tensor are like: extremes, mean, spread, oddities, a histogram. In constant memory, over pieces.

#ifndef TENSORSHELF_TOOLS_CLI_TENSOR_STATS_H_
#define TENSORSHELF_TOOLS_CLI_TENSOR_STATS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tools/cli/console.h"
#include "tools/cli/element.h"
#include "tools/cli/json_output.h"

namespace tensorshelf::cli {

struct TensorStats {
  uint64_t count = 0;
  uint64_t nan = 0, positive_infinity = 0, negative_infinity = 0, zeros = 0;
  // Over the finite values; `finite` 0: none of the following means anything. Of complex values the magnitudes.
  uint64_t finite = 0;
  double min = 0, max = 0;
  std::string min_text, max_text;  // exact, also for 64-bit integers
  double mean = 0, deviation = 0;  // deviation of the population
  // Of equal width from min to max, the last one with max in it.
  std::vector<uint64_t> histogram;
  bool magnitudes = false;
};

// Sees all values once, or twice where one pass cannot know the bins of the histogram. Confined to one thread.
class StatsCollector {
 public:
  virtual ~StatsCollector() = default;
  // Pieces are whole items, at most 2^32 of them.
  virtual void First(std::span<const std::byte> piece) = 0;
  // True: all pieces have to come again, to Second, before Finish.
  virtual bool needs_second() const = 0;
  virtual void Second(std::span<const std::byte> piece) = 0;
  virtual TensorStats Finish() = 0;
};

inline constexpr size_t kHistogramBins = 20;

std::unique_ptr<StatsCollector> NewStatsCollector(const ElementType& type);

std::string RenderStats(const TensorStats& stats, const Console& console);
Json StatsJson(const TensorStats& stats);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_TENSOR_STATS_H_
