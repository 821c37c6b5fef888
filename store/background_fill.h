// Writes zeros over space that was never written, while nobody else needs the device, so that later writes do not
// convert extents (a journal transaction each). Correctness never depends on it.

#ifndef TENSORSHELF_STORE_BACKGROUND_FILL_H_
#define TENSORSHELF_STORE_BACKGROUND_FILL_H_

#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "store/device_set.h"
#include "store/extent_allocator.h"

namespace tensorshelf {

// Zero-fills [from, to) of a file; everything there must belong to the caller.
absl::Status FillWithZeros(DeviceSet& devices, DataFile& file, uint64_t from, uint64_t to);

// Owns one thread. Destroying it stops the thread after the step at hand (16 MiB). Thread-safe.
class BackgroundFill {
 public:
  // `may_run` is asked before every step; the fill mark in DataFile rides on the commit thread's slots.
  BackgroundFill(DeviceSet* devices, ExtentAllocator* allocator, std::function<bool()> may_run);
  ~BackgroundFill();

  // Files were added.
  void LookAgain();
  // Returns when no step holds space, and lets none begin for a second: for a put that found no room.
  void StandBack();

 private:
  void Loop();
  void FillAll();
  bool Step(DataFile& file);  // false: nothing left in this file

  DeviceSet* const devices_;
  ExtentAllocator* const allocator_;
  const std::function<bool()> may_run_;
  absl::Mutex step_mutex_;  // held during a step; before mutex_ and the allocator's
  absl::Mutex mutex_;       // a leaf
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool look_again_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time not_before_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::thread thread_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_BACKGROUND_FILL_H_
