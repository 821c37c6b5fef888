#include "tools/cli/tensor_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

size_t BinOf(double value, double min, double max) {
  // In two divisions, so that a span beyond the largest double stays finite.
  const double share = max > min ? (value / 2 - min / 2) / (max / 2 - min / 2) : 0;
  return std::min(kHistogramBins - 1, static_cast<size_t>(share * kHistogramBins));
}

// Types of 16 bits or less: how often each code occurs says everything, in one pass.
class CodeCollector : public StatsCollector {
 public:
  explicit CodeCollector(const ElementType& type) : type_(type), counts_(type.item_bytes == 1 ? 256 : 65536) {}

  void First(std::span<const std::byte> piece) override {
    if (type_.item_bytes == 1) {
      for (const std::byte item : piece) ++counts_[std::to_integer<size_t>(item)];
      return;
    }
    for (size_t at = 0; at + 2 <= piece.size(); at += 2) {
      uint16_t code = 0;
      std::memcpy(&code, &piece[at], 2);
      ++counts_[code];
    }
  }
  bool needs_second() const override { return false; }
  void Second(std::span<const std::byte>) override {}

  TensorStats Finish() override {
    TensorStats stats;
    double sum = 0;
    ForEach([&](double value, const std::string&, uint64_t count) { Count(value, count, &stats); });
    if (stats.finite == 0) return stats;
    stats.min = std::numeric_limits<double>::infinity();
    stats.max = -stats.min;
    ForEach([&](double value, const std::string& text, uint64_t count) {
      if (!std::isfinite(value)) return;
      sum += value * static_cast<double>(count);
      if (value < stats.min) {
        stats.min = value;
        stats.min_text = text;
      }
      if (value > stats.max) {
        stats.max = value;
        stats.max_text = text;
      }
    });
    stats.mean = sum / static_cast<double>(stats.finite);
    stats.histogram.resize(kHistogramBins);
    double squares = 0;
    ForEach([&](double value, const std::string&, uint64_t count) {
      if (!std::isfinite(value)) return;
      squares += (value - stats.mean) * (value - stats.mean) * static_cast<double>(count);
      stats.histogram[BinOf(value, stats.min, stats.max)] += count;
    });
    stats.deviation = std::sqrt(squares / static_cast<double>(stats.finite));
    return stats;
  }

 private:
  static void Count(double value, uint64_t count, TensorStats* stats) {
    stats->count += count;
    if (std::isnan(value)) {
      stats->nan += count;
    } else if (std::isinf(value)) {
      (value > 0 ? stats->positive_infinity : stats->negative_infinity) += count;
    } else {
      stats->finite += count;
      if (value == 0) stats->zeros += count;
    }
  }

  template <typename Visit>
  void ForEach(Visit visit) const {
    for (size_t code = 0; code < counts_.size(); ++code) {
      if (counts_[code] == 0) continue;
      const auto item = static_cast<uint16_t>(code);
      std::byte bytes[2];
      std::memcpy(bytes, &item, 2);
      for (uint32_t part = 0; part < type_.per_item; ++part) {
        visit(ElementValue(type_, bytes, part), ElementText(type_, bytes, part), counts_[code]);
      }
    }
  }

  const ElementType type_;
  std::vector<uint64_t> counts_;
};

// All other types. Sums are made of partial sums, so that a billion values do not drown in the first million.
template <typename Load>
class ValueCollector : public StatsCollector {
 public:
  ValueCollector(const ElementType& type, Load load) : type_(type), load_(load) {
    stats_.magnitudes = type.kind == ElementKind::kComplex;
  }

  void First(std::span<const std::byte> piece) override {
    for (size_t at = 0; at < piece.size();) {
      const size_t end = std::min(piece.size(), at + kPartialItems * type_.item_bytes);
      double sum = 0;
      for (; at < end; at += type_.item_bytes) {
        const auto value = load_(&piece[at]);
        const auto number = static_cast<double>(value);
        ++stats_.count;
        if (!std::isfinite(number)) {
          ++(std::isnan(number) ? stats_.nan : number > 0 ? stats_.positive_infinity : stats_.negative_infinity);
          continue;
        }
        if (value == 0) ++stats_.zeros;
        sum += number;
        if (stats_.finite++ == 0 || value < min_) Extreme(value, &piece[at], &min_, &stats_.min_text);
        if (stats_.finite == 1 || value > max_) Extreme(value, &piece[at], &max_, &stats_.max_text);
      }
      sum_ += sum;
    }
  }
  bool needs_second() const override { return stats_.finite > 0; }

  void Second(std::span<const std::byte> piece) override {
    Prepare();
    for (size_t at = 0; at < piece.size();) {
      const size_t end = std::min(piece.size(), at + kPartialItems * type_.item_bytes);
      double squares = 0;
      for (; at < end; at += type_.item_bytes) {
        const auto number = static_cast<double>(load_(&piece[at]));
        if (!std::isfinite(number)) continue;
        squares += (number - stats_.mean) * (number - stats_.mean);
        ++stats_.histogram[BinOf(number, stats_.min, stats_.max)];
      }
      squares_ += squares;
    }
  }

  TensorStats Finish() override {
    if (stats_.finite > 0) stats_.deviation = std::sqrt(squares_ / static_cast<double>(stats_.finite));
    return stats_;
  }

 private:
  static constexpr size_t kPartialItems = 4096;
  using Value = std::invoke_result_t<Load, const std::byte*>;

  // Texts are made for the extremes alone: rarely, in all but hostile orders.
  void Extreme(Value value, const std::byte* item, Value* kept, std::string* text) {
    *kept = value;
    *text = type_.kind == ElementKind::kComplex ? absl::StrFormat("%.9g", static_cast<double>(value))
                                                : ElementText(type_, item, 0);
  }

  void Prepare() {
    if (!stats_.histogram.empty()) return;
    stats_.histogram.resize(kHistogramBins);
    stats_.min = static_cast<double>(min_);
    stats_.max = static_cast<double>(max_);
    stats_.mean = sum_ / static_cast<double>(stats_.finite);
  }

  const ElementType type_;
  const Load load_;
  TensorStats stats_;
  Value min_{}, max_{};
  double sum_ = 0, squares_ = 0;
};

template <typename T>
struct LoadAs {
  T operator()(const std::byte* item) const {
    T value;
    std::memcpy(&value, item, sizeof value);
    return value;
  }
};

struct LoadMagnitude {
  ElementType type;
  double operator()(const std::byte* item) const { return ElementValue(type, item, 0); }
};

template <typename Load>
std::unique_ptr<StatsCollector> Collector(const ElementType& type, Load load) {
  return std::make_unique<ValueCollector<Load>>(type, load);
}

// "████▌": eighths of a cell.
std::string Bar(double share, size_t cells) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<size_t>(std::ceil(share * static_cast<double>(cells) * 8));
  std::string bar;
  for (size_t i = 0; i < eighths / 8; ++i) bar += "█";
  return bar + kEighths[eighths % 8];
}

}  // namespace

std::unique_ptr<StatsCollector> NewStatsCollector(const ElementType& type) {
  if (type.kind == ElementKind::kComplex) return Collector(type, LoadMagnitude{type});
  if (type.item_bytes <= 2) return std::make_unique<CodeCollector>(type);
  const bool wide = type.item_bytes == 8;
  switch (type.kind) {
    case ElementKind::kSigned:
      return wide ? Collector(type, LoadAs<int64_t>{}) : Collector(type, LoadAs<int32_t>{});
    case ElementKind::kFloat:
      return wide ? Collector(type, LoadAs<double>{}) : Collector(type, LoadAs<float>{});
    default:
      return wide ? Collector(type, LoadAs<uint64_t>{}) : Collector(type, LoadAs<uint32_t>{});
  }
}

std::string RenderStats(const TensorStats& stats, const Console& console) {
  std::string text = absl::StrCat("values        ", stats.count, stats.magnitudes ? " (magnitudes follow)" : "", "\n");
  const auto count_line = [&](const char* label, uint64_t count, Colour colour) {
    if (count == 0) return;
    const double share = 100.0 * static_cast<double>(count) / static_cast<double>(stats.count);
    absl::StrAppend(&text, label, Painted(console, colour, absl::StrFormat("%d (%.3g %%)", count, share)), "\n");
  };
  count_line("zeros         ", stats.zeros, Colour::kDim);
  count_line("nan           ", stats.nan, Colour::kRed);
  count_line("+inf          ", stats.positive_infinity, Colour::kRed);
  count_line("-inf          ", stats.negative_infinity, Colour::kRed);
  if (stats.finite == 0) return text;
  absl::StrAppend(&text, "min           ", stats.min_text, "\nmax           ", stats.max_text, "\n",
                  absl::StrFormat("mean          %.9g\ndeviation     %.9g\n", stats.mean, stats.deviation));
  const uint64_t most = *std::ranges::max_element(stats.histogram);
  const size_t cells = std::clamp<size_t>(console.columns, 50, 120) - 40;
  for (size_t bin = 0; bin < stats.histogram.size(); ++bin) {
    const double begin = stats.min + (stats.max / 2 - stats.min / 2) * 2 * static_cast<double>(bin) / kHistogramBins;
    const uint64_t count = stats.histogram[bin];
    absl::StrAppend(&text, absl::StrFormat("%12.5g  %12d  ", begin, count),
                    Painted(console, Colour::kBlue, Bar(static_cast<double>(count) / static_cast<double>(most), cells)),
                    "\n");
    if (stats.min == stats.max) break;
  }
  return text;
}

Json StatsJson(const TensorStats& stats) {
  Json json = {{"count", stats.count},
               {"zeros", stats.zeros},
               {"nan", stats.nan},
               {"positive_infinity", stats.positive_infinity},
               {"negative_infinity", stats.negative_infinity},
               {"magnitudes", stats.magnitudes}};
  if (stats.finite == 0) {
    json.update({{"min", nullptr}, {"max", nullptr}, {"mean", nullptr}, {"deviation", nullptr}});
    json["histogram"] = nullptr;
    return json;
  }
  json.update({{"min", stats.min}, {"max", stats.max}, {"mean", stats.mean}, {"deviation", stats.deviation}});
  json["min_text"] = stats.min_text;
  json["max_text"] = stats.max_text;
  json["histogram"] = {{"begin", stats.min}, {"end", stats.max}, {"counts", stats.histogram}};
  return json;
}

}  // namespace tensorshelf::cli
