// A tensor's values as text in nested brackets, large ones summarised as NumPy does: the first and the last three of
// each dimension. Pure functions.

#ifndef TENSORSHELF_TOOLS_CLI_TENSOR_TEXT_H_
#define TENSORSHELF_TOOLS_CLI_TENSOR_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tensorshelf::cli {

// Elements [first, first + count), in C order.
struct ElementRun {
  uint64_t first = 0;
  uint64_t count = 0;
};

struct TextPlan {
  std::vector<uint64_t> shape;   // as shown
  bool summarised = false;       // dimensions over 2 * kEdgeCount are cut
  std::vector<ElementRun> runs;  // the elements that are shown, in order

  uint64_t shown_count() const;
};

inline constexpr uint64_t kSummariseFrom = 1001;  // elements
inline constexpr uint64_t kEdgeCount = 3;

// Never more than some ten thousand elements, whatever the shape: one of many short dimensions is shown flat.
TextPlan PlanText(const std::vector<uint64_t>& shape);

// `texts`: one for each shown element. Lines are at most `columns` wide where one element fits.
std::string RenderTensor(const TextPlan& plan, const std::vector<std::string>& texts, size_t columns);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_TENSOR_TEXT_H_
