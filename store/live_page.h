// The counters of a live store as one page of plain bytes: what stats(), metrics() and `tensorshelf watch` show. The
// writer keeps it in `<shelf>/counters` while it has the store open (store/live_file.h). Not part of the durable
// format: nothing of it is needed to open a store, and a page of another version is not read.
//
// PAGE, 32768 bytes, little-endian; times are nanoseconds; reserved bytes are zero
//   0      "TSHLIVEC"  8 u32 version = 1  12 u32 size = 32768  16 u32 operation_count  20 u32 device_count
//   24     u32 devices_left_out  28 u32 bucket_count = 64  32 store_uuid[16]  48 u64 sequence  56 i64 updated_ns
//   64     i64 opened_ns  72 u64 epoch  80 u64 process_start_ticks  88 u32 pid  92 u32 0
//   96     holder[320]  416 program[32]
//   512    GAUGES, 64 u64 in the order of LiveGauges
//   1024   OPERATION[16], 576 bytes each, in the order of Operation (store/operation_meters.h):
//          0 u64 items  8 u64 bytes  16 u64 errors  24 u64 calls  32 u64[2] 0  48 LATENCY
//   10240  DEVICE[16], 1232 bytes each:
//          0 uuid[16]  16 tier[32]  48 u64 read_ops, write_ops, read_bytes, write_bytes, staged_bytes, resubmitted_ops,
//          failed_ops, in_flight_ops, waiting_blocks, capacity, live, free  144 u64[4] 0  176 LATENCY of reads
//          704 LATENCY of writes
//   29952  0  32760 u64 H(0 .. 32759)
// LATENCY  0 u64 buckets[64] (bounds: engine/foundation/latency_histogram.h)  512 u64 sum_ns  520 u64 max_ns
//
// Texts end with a zero byte or with their field. Within version 1 a reserved field may get a meaning for which zero is
// "not counted"; anything else is a new version.

#ifndef TENSORSHELF_STORE_LIVE_PAGE_H_
#define TENSORSHELF_STORE_LIVE_PAGE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/foundation/latency_histogram.h"
#include "index/record.h"
#include "store/operation_meters.h"

namespace tensorshelf {

inline constexpr uint32_t kLivePageVersion = 1;
inline constexpr size_t kLivePageBytes = 32768;
inline constexpr size_t kLiveOperationsMax = 16;
inline constexpr size_t kLiveDevicesMax = 16;

struct LiveHeader {
  std::array<char, 8> magic{};
  uint32_t version = 0;
  uint32_t size = 0;  // bytes of the page
  uint32_t operation_count = 0;
  uint32_t device_count = 0;
  uint32_t devices_left_out = 0;  // of the store, for which there is no room here
  uint32_t bucket_count = 0;
  Uuid store_uuid{};
  uint64_t sequence = 0;   // rises with every writing of the page
  int64_t updated_ns = 0;  // of the system clock: when a number last changed, as far as the writer looked
  int64_t opened_ns = 0;   // of the system clock
  uint64_t epoch = 0;
  uint64_t process_start_ticks = 0;  // of the writer, field 22 of /proc/PID/stat
  uint32_t pid = 0;
  uint32_t reserved = 0;
  std::array<char, 320> holder{};  // the text in LOCK: whoever holds the lock with this text wrote the page
  std::array<char, 32> program{};  // its name, as ps shows it
  std::array<char, 64> reserved_text{};
};

// Bytes where the name does not say otherwise. UINT64_MAX: not counted.
struct LiveGauges {
  uint64_t commit = 0;  // number of the newest one
  uint64_t names = 0, objects = 0;
  uint64_t capacity = 0, reserved = 0, live = 0, parked = 0, free = 0, scratch = 0, limbo = 0, bad = 0;
  uint64_t leased_objects = 0, open_views = 0, waiting_commits = 0;
  uint64_t commits = 0, commit_groups = 0, puts = 0, unchanged_puts = 0;  // counts since the store was opened
  uint64_t reread_blocks = 0, corrupt_blocks = 0;                         // the same
  uint64_t arena_buffers = 0, arena_free_buffers = 0, arena_waiting = 0, arena_buffer_size = 0;
  uint64_t pool_held = 0, pool_kept = 0, pool_recycled = 0, pool_mapped = 0;  // the last two are counts
  uint64_t record_cache_hits = 0, record_cache_misses = 0, record_cache_size = 0;
  uint64_t index_memory = 0, index_size = 0;
  // Tensors kept in memory; all zero where there is no such tier.
  uint64_t memory_capacity = 0, memory_size = 0, memory_leased = 0, memory_hits = 0, memory_misses = 0;
  std::array<uint64_t, 26> reserved_gauges{};
};

struct LiveOperation {
  uint64_t items = 0, bytes = 0, errors = 0, calls = 0;
  std::array<uint64_t, 2> reserved{};
  LatencyCounts latency;
};

struct LiveDevice {
  Uuid uuid{};
  std::array<char, 32> tier{};
  uint64_t read_ops = 0, write_ops = 0, read_bytes = 0, write_bytes = 0, staged_bytes = 0;
  uint64_t resubmitted_ops = 0, failed_ops = 0;
  uint64_t in_flight_ops = 0, waiting_blocks = 0;  // at the moment of updated_ns
  uint64_t capacity = 0, live = 0, free = 0;       // bytes; zero in a reader, which does not count them
  std::array<uint64_t, 4> reserved{};
  LatencyCounts read_latency, write_latency;
};

struct LivePage {
  LiveHeader header;
  LiveGauges gauges;
  std::array<LiveOperation, kLiveOperationsMax> operations{};
  std::array<LiveDevice, kLiveDevicesMax> devices{};
  std::array<std::byte, 2808> reserved{};
  uint64_t hash = 0;

  const LiveOperation& operation(Operation which) const { return operations[static_cast<size_t>(which)]; }
  std::span<const LiveDevice> used_devices() const { return std::span(devices).first(header.device_count); }
};

static_assert(std::is_trivially_copyable_v<LivePage> && std::is_standard_layout_v<LivePage>);
// No padding: pages are compared as bytes.
static_assert(std::has_unique_object_representations_v<LivePage>);
static_assert(sizeof(LiveHeader) == 512 && offsetof(LiveHeader, store_uuid) == 32);
static_assert(offsetof(LiveHeader, sequence) == 48 && offsetof(LiveHeader, opened_ns) == 64);
static_assert(offsetof(LiveHeader, pid) == 88 && offsetof(LiveHeader, holder) == 96);
static_assert(offsetof(LiveHeader, program) == 416);
static_assert(sizeof(LiveGauges) == 512 && offsetof(LiveGauges, memory_capacity) == 264);
static_assert(sizeof(LiveOperation) == 576 && offsetof(LiveOperation, latency) == 48);
static_assert(sizeof(LiveDevice) == 1232 && offsetof(LiveDevice, read_ops) == 48);
static_assert(offsetof(LiveDevice, read_latency) == 176 && offsetof(LiveDevice, write_latency) == 704);
static_assert(sizeof(LivePage) == kLivePageBytes && offsetof(LivePage, gauges) == 512);
static_assert(offsetof(LivePage, operations) == 1024 && offsetof(LivePage, devices) == 10240);
static_assert(offsetof(LivePage, reserved) == 29952 && offsetof(LivePage, hash) == 32760);
static_assert(kOperationCount <= kLiveOperationsMax);

// Magic, version, sizes and counts of this build; the caller fills in the rest.
void InitialiseLivePage(LivePage& page);

template <size_t kSize>
std::string TextOf(const std::array<char, kSize>& field) {
  return std::string(field.data(), std::find(field.begin(), field.end(), '\0') - field.begin());
}
// Cut where it is too long.
template <size_t kSize>
void SetText(std::array<char, kSize>& field, const std::string& text) {
  field.fill('\0');
  std::copy_n(text.begin(), std::min(text.size(), kSize), field.begin());
}

// The bytes of a page, with its hash.
std::string EncodeLivePage(const LivePage& page);

// Trusts nothing in `bytes`. DataLoss: wrong length, magic, size, counts or hash; a page that was caught while it was
// written is told by its hash alone, so the caller may read again. FailedPrecondition: another version.
absl::StatusOr<LivePage> DecodeLivePage(std::span<const std::byte> bytes);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_LIVE_PAGE_H_
