// The options of a store: one home for every setting.

#ifndef TENSORSHELF_STORE_OPTIONS_H_
#define TENSORSHELF_STORE_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/disk.h"
#include "engine/io_engine.h"
#include "engine/memory.h"
#include "index/index.h"

namespace tensorshelf {

inline constexpr uint64_t kCapacityMin = uint64_t{8} << 20;

// Writing every byte of a data file once makes later writes two to four times faster: a first write into fallocated
// space is a journal transaction.
enum class Prefill {
  kNone,        // never
  kBackground,  // in regions of 1 GiB while the store is open and idle
  kFull,        // before Create returns
};

struct CreateOptions {
  // Bytes for tensors (and their trailers), over all devices, rounded up to 64 KiB a device; at least 8 MiB a device.
  // The files are 2 MiB larger each, and the index grows beside them.
  uint64_t capacity = 0;
  // One directory per device, made when absent; empty: the shelf's own directory.
  std::vector<std::string> devices = {};
  Prefill prefill = Prefill::kBackground;
  // Measures each device (store/tuning.h, about two seconds each) and keeps in the shelf how it is best driven.
  bool tune = false;
  // Files are 0600 in 0700 directories; true: 0640 and 0750.
  bool group_readable = false;
  // Called during a full prefill with bytes done and in all.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  Disk* disk = nullptr;                   // not owned; null: the machine's own
  IndexFileObserver* observer = nullptr;  // not owned
};

enum class TrailerPolicy { kLarge, kAll, kNone };  // kLarge: objects of 64 KiB and more

struct StoreOptions {
  enum class Mode { kReadWrite, kReadOnly };
  Mode mode = Mode::kReadWrite;
  // Directories in which to look for data files that are neither under the shelf nor at their hints.
  std::vector<std::string> devices;
  // True: opens read-only although a device is missing; reads of what lies there fail with kDeviceMissing.
  bool degraded = false;
  // True: opens although acknowledged commits are missing from the index, once somebody has decided so (fsck).
  bool accept_lost_commits = false;

  uint64_t staging_bytes = uint64_t{64} << 20;
  uint64_t result_pool_bytes = uint64_t{4} << 30;  // freed result memory kept for reuse
  // The memory tier: objects that stay in memory for later reads (store/memory_tier.h). 0: none. Address space at once,
  // memory as it is first used. AutoMemoryBytes (store/memory_budget.h) suggests a size.
  uint64_t memory_bytes = 0;
  bool page_locked = true;           // staging, results and the memory tier, where RLIMIT_MEMLOCK allows
  uint64_t inline_bytes_max = 1024;  // objects up to this size live in the index
  // The same for the only object of a put: in the index it costs one sync, in a data file two.
  uint64_t lone_inline_bytes_max = 4096;
  TrailerPolicy trailers = TrailerPolicy::kLarge;
  bool background_fill = true;     // continue an unfinished prefill while idle
  int64_t idle_witness_ms = 1000;  // a commit has its witness this long after it at the latest

  IoEngineOptions io;
  // Where the shelf remembers how a device is best driven, and `io` has the defaults of worker_count, queue_depth and
  // io_size, that is what its transfers use. False: `io` alone counts.
  bool use_tuning = true;
  IndexOptions index;
  MemoryHooks memory_hooks;
  std::function<void(const std::string& message)> notice;  // said once each: buffered fallback, no page lock, orphans
  Disk* disk = nullptr;                                    // not owned; null: the machine's own
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_OPTIONS_H_
