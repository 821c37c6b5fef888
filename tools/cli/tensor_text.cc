#include "tools/cli/tensor_text.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>

namespace tensorshelf::cli {
namespace {

constexpr uint64_t kShownMax = 10000;

bool IsCut(const TextPlan& plan, uint64_t length) { return plan.summarised && length > 2 * kEdgeCount; }

// Fixed before anything is allocated for it.
uint64_t CountShown(const TextPlan& plan) {
  uint64_t count = 1;
  for (const uint64_t length : plan.shape) {
    count *= IsCut(plan, length) ? 2 * kEdgeCount : length;
    if (count > kShownMax) break;
  }
  return count;
}

uint64_t Product(std::span<const uint64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
}

void AddRuns(TextPlan& plan, size_t dimension, uint64_t first) {
  const uint64_t length = plan.shape[dimension];
  const bool cut = IsCut(plan, length);
  if (dimension + 1 == plan.shape.size()) {
    plan.runs.push_back({first, cut ? kEdgeCount : length});
    if (cut) plan.runs.push_back({first + length - kEdgeCount, kEdgeCount});
    return;
  }
  const uint64_t stride = Product(std::span(plan.shape).subspan(dimension + 1));
  for (uint64_t i = 0; i < length; ++i) {
    if (cut && i == kEdgeCount) i = length - kEdgeCount;
    AddRuns(plan, dimension + 1, first + i * stride);
  }
}

// Writes one tensor. Confined to one call of RenderTensor.
class Renderer {
 public:
  Renderer(const TextPlan& plan, const std::vector<std::string>& texts, size_t columns)
      : plan_(plan), texts_(texts), columns_(columns) {
    for (const std::string& text : texts) width_ = std::max(width_, text.size());
  }

  std::string Run() {
    if (plan_.shape.empty()) return texts_[0];
    if (texts_.empty()) return "[]";
    Dimension(0);
    return std::move(out_);
  }

 private:
  void Dimension(size_t dimension) {
    if (dimension + 1 == plan_.shape.size()) return Row(dimension);
    out_.push_back('[');
    const uint64_t length = plan_.shape[dimension];
    const std::string separator =
        std::string(plan_.shape.size() - dimension - 1, '\n') + std::string(dimension + 1, ' ');
    const bool cut = IsCut(plan_, length);
    const uint64_t shown = cut ? 2 * kEdgeCount : length;
    for (uint64_t i = 0; i < shown; ++i) {
      if (i > 0) out_.append(separator);
      if (cut && i == kEdgeCount) out_.append("...").append(separator);
      Dimension(dimension + 1);
    }
    out_.push_back(']');
  }

  void Row(size_t dimension) {
    const uint64_t length = plan_.shape[dimension];
    const bool cut = IsCut(plan_, length);
    const uint64_t shown = cut ? 2 * kEdgeCount : length;
    out_.push_back('[');
    size_t used = dimension + 1;
    const auto put = [&](const std::string& text, size_t width, bool first) {
      if (!first && used + 1 + width > columns_ - 1) {
        out_.append("\n").append(dimension + 1, ' ');
        used = dimension + 1;
      } else if (!first) {
        out_.push_back(' ');
        ++used;
      }
      out_.append(width - text.size(), ' ').append(text);
      used += width;
    };
    for (uint64_t i = 0; i < shown; ++i) {
      if (cut && i == kEdgeCount) put("...", 3, false);
      put(texts_[next_++], width_, i == 0);
    }
    out_.push_back(']');
  }

  const TextPlan& plan_;
  const std::vector<std::string>& texts_;
  const size_t columns_;
  size_t width_ = 0;
  size_t next_ = 0;
  std::string out_;
};

}  // namespace

uint64_t TextPlan::shown_count() const {
  uint64_t count = 0;
  for (const ElementRun& run : runs) count += run.count;
  return count;
}

TextPlan PlanText(const std::vector<uint64_t>& shape) {
  TextPlan plan;
  plan.shape = shape;
  const bool empty = std::ranges::find(shape, uint64_t{0}) != shape.end();
  if (empty) return plan;
  const uint64_t count = Product(shape);
  plan.summarised = count >= kSummariseFrom;
  if (CountShown(plan) > kShownMax) plan.shape = {count};
  if (plan.shape.empty()) {
    plan.runs.push_back({0, 1});
  } else {
    AddRuns(plan, 0, 0);
  }
  return plan;
}

std::string RenderTensor(const TextPlan& plan, const std::vector<std::string>& texts, size_t columns) {
  return Renderer(plan, texts, std::max<size_t>(columns, 20)).Run();
}

}  // namespace tensorshelf::cli
