#include "store/tuning.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "engine/foundation/latency_histogram.h"
#include "engine/foundation/status_macros.h"
#include "engine/io_engine.h"
#include "engine/memory.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kRegionBytes = uint64_t{128} << 20;
constexpr uint64_t kStepBytes = uint64_t{32} << 20;  // one batch: what is measured is not its beginning and end
constexpr uint64_t kTryNs = 50'000'000;              // of reads, and of writes again; a batch is not cut short
constexpr uint64_t kBudgetNs = 2'000'000'000;
constexpr uint32_t kSumBlock = uint32_t{1} << kBlockLog2;
constexpr double kMargin = 1.10;

constexpr std::array<uint32_t, 5> kIoSizes = {256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20};
constexpr std::array<uint32_t, 4> kDepths = {8, 16, 32, 64};
constexpr std::array<uint32_t, 3> kWorkers = {1, 2, 4};

// Transfers as a large put and a large get make them, with their sums, on one file. Confined to one thread.
class Bench {
 public:
  Bench(Disk& disk, DataFile& file) : disk_(disk), file_(file), pool_(MemoryPool::Options{.kept_bytes_max = 0}) {}

  absl::Status Prepare() {
    region_bytes_ = std::min(kRegionBytes, file_.row.data_end - file_.row.data_begin);
    step_bytes_ = std::min(kStepBytes, region_bytes_);
    TS_ASSIGN_OR_RETURN(memory_, pool_.Allocate(step_bytes_));
    std::fill_n(memory_.data(), step_bytes_, std::byte{0});
    sums_.resize((step_bytes_ + kSumBlock - 1) / kSumBlock);
    // Space that was never written reads as zeros without the device, and its first write is the file system's work.
    TS_RETURN_IF_ERROR(UseSetting(DefaultIoSetting()));
    for (uint64_t at = 0; at < region_bytes_; at += step_bytes_) TS_RETURN_IF_ERROR(Move(IoKind::kWrite, at));
    file_.filled_until = std::max(file_.filled_until.load(), file_.row.data_begin + region_bytes_);
    begun_ns_ = SteadyNanoseconds();
    return absl::OkStatus();
  }

  bool out_of_time() const { return SteadyNanoseconds() - begun_ns_ > kBudgetNs; }

  absl::StatusOr<TransferRates> Measure(const IoSetting& setting) {
    TS_RETURN_IF_ERROR(UseSetting(setting));
    TransferRates rates;
    TS_ASSIGN_OR_RETURN(rates.write, Rate(IoKind::kWrite));
    TS_ASSIGN_OR_RETURN(rates.read, Rate(IoKind::kRead));
    return rates;
  }

 private:
  absl::Status UseSetting(const IoSetting& setting) {
    if (engine_ != nullptr && setting == setting_) return absl::OkStatus();
    engine_.reset();
    arena_.reset();
    TS_ASSIGN_OR_RETURN(
        arena_, StagingArena::Create(
                    {.size = 2 * uint64_t{setting.io_size}, .buffer_size = setting.io_size, .page_locked = false}));
    IoEngineOptions options;
    options.worker_count = setting.worker_count;
    options.queue_depth = setting.queue_depth;
    options.io_size = setting.io_size;
    options.small_size = std::min<uint64_t>(options.small_size, setting.io_size);
    TS_ASSIGN_OR_RETURN(engine_, IoEngine::Create(&disk_, arena_.get(), options));
    setting_ = setting;
    return absl::OkStatus();
  }

  absl::Status Move(IoKind kind, uint64_t at) {
    const uint64_t length = std::min(step_bytes_, region_bytes_ - at);
    return engine_
        ->Run({.kind = kind,
               .segments = {{.file = file_.file.get(),
                             .offset = file_.row.data_begin + at,
                             .memory = memory_.data(),
                             .length = length,
                             .sums = sums_.data(),
                             .sum_block = kSumBlock}},
               .done = nullptr})
        .status;
  }

  absl::StatusOr<double> Rate(IoKind kind) {
    const uint64_t begun_ns = SteadyNanoseconds();
    uint64_t bytes = 0;
    uint64_t now_ns = begun_ns;
    while (bytes < region_bytes_ && now_ns - begun_ns < kTryNs) {
      TS_RETURN_IF_ERROR(Move(kind, bytes));
      bytes = std::min(bytes + step_bytes_, region_bytes_);
      now_ns = SteadyNanoseconds();
    }
    return static_cast<double>(bytes) * 1e9 / static_cast<double>(std::max<uint64_t>(now_ns - begun_ns, 1));
  }

  Disk& disk_;
  DataFile& file_;
  MemoryPool pool_;
  MemoryPool::Piece memory_;
  std::vector<Sum128> sums_;
  uint64_t region_bytes_ = 0, step_bytes_ = 0;
  uint64_t begun_ns_ = 0;
  IoSetting setting_;
  std::unique_ptr<StagingArena> arena_;
  std::unique_ptr<IoEngine> engine_;
};

TransferRates MedianOf(std::vector<TransferRates> tries) {
  std::ranges::sort(tries, {}, &TransferRates::score);
  return tries[tries.size() / 2];
}

}  // namespace

IoSetting DefaultIoSetting() {
  const IoEngineOptions defaults;
  return {static_cast<uint32_t>(defaults.io_size), static_cast<uint32_t>(defaults.queue_depth),
          static_cast<uint32_t>(defaults.worker_count)};
}

absl::StatusOr<BestSetting> SearchSetting(
    const std::function<absl::StatusOr<TransferRates>(const IoSetting& setting)>& measure) {
  const IoSetting defaults = DefaultIoSetting();
  BestSetting best{.setting = defaults, .rates = {}};
  TS_ASSIGN_OR_RETURN(best.rates, measure(defaults));
  const auto sweep = [&](std::span<const uint32_t> values, uint32_t IoSetting::*field) -> absl::Status {
    const IoSetting base = best.setting;
    for (const uint32_t value : values) {
      if (value == base.*field) continue;
      IoSetting setting = base;
      setting.*field = value;
      TS_ASSIGN_OR_RETURN(const TransferRates rates, measure(setting));
      if (rates.score() > best.rates.score()) best = {.setting = setting, .rates = rates};
    }
    return absl::OkStatus();
  };
  TS_RETURN_IF_ERROR(sweep(kIoSizes, &IoSetting::io_size));
  TS_RETURN_IF_ERROR(sweep(kWorkers, &IoSetting::worker_count));
  TS_RETURN_IF_ERROR(sweep(kDepths, &IoSetting::queue_depth));
  std::vector<TransferRates> of_defaults, of_best;
  for (int i = 0; i < 3; ++i) {
    TS_ASSIGN_OR_RETURN(const TransferRates rates, measure(defaults));
    of_defaults.push_back(rates);
    if (best.setting == defaults) continue;
    TS_ASSIGN_OR_RETURN(const TransferRates others, measure(best.setting));
    of_best.push_back(others);
  }
  const TransferRates with_defaults = MedianOf(of_defaults);
  if (best.setting == defaults) return BestSetting{.setting = defaults, .rates = with_defaults};
  const TransferRates with_best = MedianOf(of_best);
  if (with_best.score() < kMargin * with_defaults.score()) {
    return BestSetting{.setting = defaults, .rates = with_defaults};
  }
  return BestSetting{.setting = best.setting, .rates = with_best};
}

absl::StatusOr<TuningRow> TuneDevice(Disk& disk, DataFile& file) {
  Bench bench(disk, file);
  TS_RETURN_IF_ERROR(bench.Prepare());
  TS_ASSIGN_OR_RETURN(TransferRates first, bench.Measure(DefaultIoSetting()));
  // A slow device has no time for the search: what is not tried is as good as the defaults.
  const auto measure = [&](const IoSetting& setting) -> absl::StatusOr<TransferRates> {
    if (bench.out_of_time()) return first;
    return bench.Measure(setting);
  };
  TS_ASSIGN_OR_RETURN(const BestSetting best, SearchSetting(measure));
  return TuningRow{.device_uuid = file.row.device_uuid,
                   .io_size = best.setting.io_size,
                   .queue_depth = best.setting.queue_depth,
                   .worker_count = best.setting.worker_count,
                   .read_bytes_per_s = static_cast<uint64_t>(best.rates.read),
                   .write_bytes_per_s = static_cast<uint64_t>(best.rates.write)};
}

}  // namespace tensorshelf
