// What FaultyDisk, its files and its queues share: which calls were made and which are to be hit.

#ifndef TENSORSHELF_TESTS_TESTING_FAULT_SCRIPT_H_
#define TENSORSHELF_TESTS_TESTING_FAULT_SCRIPT_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "tests/testing/faulty_disk.h"

namespace tensorshelf::testing {

// Thread-safe.
class FaultScript {
 public:
  // Counts one call and says what is to happen to it, if anything. Transfers say which bytes they touch.
  std::optional<Fault> Enter(Call call, const std::string& path, uint64_t offset = 0, uint64_t length = 1);

  // Enters `call` and makes it: `make` returns a status or a StatusOr. kLose gives `lost`.
  template <typename Result>
  Result Run(Call call, const std::string& path, const std::function<Result()>& make,
             const std::function<Result()>& lost = nullptr) {
    const std::optional<Fault> fault = Enter(call, path);
    if (!fault.has_value()) return make();
    if (fault->effect == Effect::kLose && lost) return lost();
    if (fault->effect == Effect::kFailAfter) make().IgnoreError();
    return IoError(fault->error_number, absl::StrCat("injected fault at ", path));
  }

  void Arm(Fault fault);
  void DisarmAll();
  void set_on_call(std::function<void(Call, const std::string&)> on_call);
  void set_reorder_seed(uint64_t seed);
  // A number below `limit` to choose a completion by; nullopt when they come in order.
  std::optional<size_t> Choose(size_t limit);
  void Remember(const std::string& path, std::string bytes);
  // Puts the remembered bytes of the file at `offset` into `to`, as far as there are any.
  void MakeStale(const std::string& path, uint64_t offset, std::span<std::byte> to) const;
  uint64_t count(Call call) const;
  uint64_t fired_count() const;

 private:
  struct Armed {
    Fault fault;
    uint64_t seen = 0;
  };

  mutable absl::Mutex mutex_;
  std::vector<Armed> armed_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> remembered_ ABSL_GUARDED_BY(mutex_);  // by path
  std::array<uint64_t, kCallCount> counts_ ABSL_GUARDED_BY(mutex_) = {};
  uint64_t fired_count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<uint64_t> random_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const std::function<void(Call, const std::string&)>> on_call_ ABSL_GUARDED_BY(mutex_);
};

// `base` belongs to the new file; both are of a disk with this script.
std::unique_ptr<File> NewFaultyFile(std::shared_ptr<FaultScript> script, std::unique_ptr<File> base);
// The file that a faulty file wraps.
File* BaseOf(File* faulty_file);
std::unique_ptr<IoQueue> NewFaultyQueue(std::shared_ptr<FaultScript> script, std::unique_ptr<IoQueue> base);

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_FAULT_SCRIPT_H_
