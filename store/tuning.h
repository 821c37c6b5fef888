// Finds out how a device is best driven: how long its transfers are, how many are in flight, how many workers hash and
// copy beside them.

#ifndef TENSORSHELF_STORE_TUNING_H_
#define TENSORSHELF_STORE_TUNING_H_

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "index/record.h"
#include "store/device_set.h"

namespace tensorshelf {

// What one try measured, bytes a second.
struct TransferRates {
  double read = 0, write = 0;
  // The same number of bytes written and read takes the least time with the highest score.
  double score() const { return read <= 0 || write <= 0 ? 0 : 1 / (1 / read + 1 / write); }
};

struct IoSetting {
  uint32_t io_size = 0;  // bytes
  uint32_t queue_depth = 0;
  uint32_t worker_count = 0;
  friend bool operator==(const IoSetting&, const IoSetting&) = default;
};
IoSetting DefaultIoSetting();

// The search alone: changes one of the three at a time, keeps what measures better, and at the end compares the best
// one with the defaults again, by medians of three tries in turn. The defaults stay unless another one is better by a
// tenth. `measure` is called about 20 times, for the most part with settings that it was not called with before.
struct BestSetting {
  IoSetting setting;
  TransferRates rates;
};
absl::StatusOr<BestSetting> SearchSetting(
    const std::function<absl::StatusOr<TransferRates>(const IoSetting& setting)>& measure);

// Measures on the data area of a file that nobody uses yet, whose first 128 MiB (or all, where it is smaller) are zeros
// afterwards and counted in its fill mark. Takes about two seconds, more only on a device that needs more for four
// transfers of a few MiB. An error of the device is returned.
absl::StatusOr<TuningRow> TuneDevice(Disk& disk, DataFile& file);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_TUNING_H_
