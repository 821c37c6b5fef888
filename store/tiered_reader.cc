#include "store/tiered_reader.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "engine/foundation/processor_count.h"
#include "engine/foundation/status_macros.h"
#include "store/stager.h"

namespace tensorshelf {
namespace {

using Role = MemoryTier::Claim::Role;

constexpr uint64_t kBytesPerThread = uint64_t{16} << 20;  // below this a thread costs more than it saves
constexpr uint64_t kCopyStep = uint64_t{1} << 20;         // what one thread takes at a time

MemoryTier::Use UseOf(const ReadOptions& options, bool ahead) {
  return {.cache = options.cache, .order = options.order, .ahead = ahead};
}

// The claims of one call on the objects that may lie in the tier, and where they stand among its items.
struct Claims {
  std::vector<size_t> item_of;  // per claim
  std::vector<MemoryTier::Claim> claims;
};

Claims ClaimItems(MemoryTier& tier, std::span<const ReadItem> items, const MemoryTier::Use& use, bool whole_objects) {
  Claims result;
  std::vector<MemoryTier::Wish> wishes;
  wishes.reserve(items.size());
  result.item_of.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const ReadItem& item = items[i];
    if (!LiesInExtents(*item.record) || (item.to.empty() && !whole_objects)) continue;
    const bool whole = whole_objects || (item.offset == 0 && item.to.size() == item.record->logical_bytes);
    wishes.push_back({.record = item.record, .whole = whole});
    result.item_of.push_back(i);
  }
  result.claims = tier.ClaimAll(wishes, use);
  return result;
}

ReadItem FillOf(const ReadItem& item, const MemoryTier::Claim& claim) {
  ReadItem fill = item;
  fill.offset = 0;
  fill.to = claim.entry()->bytes();
  return fill;
}

bool InRange(const ReadItem& item) {
  return item.offset <= item.record->logical_bytes && item.to.size() <= item.record->logical_bytes - item.offset;
}

MemoryCopy CopyOut(const ReadItem& item, const TierEntry& entry) {
  return {entry.bytes().data() + item.offset, item.to.data(), item.to.size()};
}

}  // namespace

bool LiesInExtents(const ObjectRecord& record) {
  return record.placement == Placement::kExtents && record.logical_bytes > 0;
}

void CopyAll(std::span<const MemoryCopy> copies) {
  uint64_t bytes = 0;
  for (const MemoryCopy& copy : copies) bytes += copy.length;
  const size_t thread_count = std::min<size_t>(bytes / kBytesPerThread, ProcessorCount());
  if (thread_count < 2) {
    for (const MemoryCopy& copy : copies) std::memcpy(copy.to, copy.from, copy.length);
    return;
  }
  std::vector<MemoryCopy> steps;
  steps.reserve(bytes / kCopyStep + copies.size());
  for (const MemoryCopy& copy : copies) {
    for (uint64_t at = 0; at < copy.length; at += kCopyStep) {
      steps.push_back({copy.from + at, copy.to + at, std::min(kCopyStep, copy.length - at)});
    }
  }
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < steps.size();) {
      std::memcpy(steps[i].to, steps[i].from, steps[i].length);
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < std::min<size_t>(thread_count, 8); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

absl::Status TieredReader::Read(std::span<const ReadItem> items, const ReadOptions& options) {
  // The reader below says what is wrong with a range; here it only must not reach memory.
  if (!std::all_of(items.begin(), items.end(), InRange)) return reader_->Read(items, options.verify, options.priority);
  Claims claimed = ClaimItems(*tier_, items, UseOf(options, /*ahead=*/false), /*whole_objects=*/false);
  std::vector<MemoryCopy> copies;
  std::vector<ReadItem> fills;  // always verified
  std::vector<ReadItem> past;
  copies.reserve(items.size());
  for (size_t i = 0, next = 0; i < items.size(); ++i) {
    if (next == claimed.item_of.size() || claimed.item_of[next] != i) {
      past.push_back(items[i]);
      continue;
    }
    const MemoryTier::Claim& claim = claimed.claims[next++];
    if (claim.role() == Role::kHit) copies.push_back(CopyOut(items[i], *claim.entry()));
    if (claim.role() == Role::kFill) fills.push_back(FillOf(items[i], claim));
    if (claim.role() == Role::kBypass) past.push_back(items[i]);
  }
  CopyAll(copies);
  copies.clear();
  if (options.verify) {
    past.insert(past.end(), fills.begin(), fills.end());
  } else if (!fills.empty()) {
    const absl::Status status = reader_->Read(fills, /*verify=*/true, options.priority);
    // Damaged bytes do not come into the tier, but who asks for them gets them.
    if (absl::IsDataLoss(status)) return reader_->Read(items, /*verify=*/false, options.priority);
    TS_RETURN_IF_ERROR(status);
  }
  if (!past.empty()) TS_RETURN_IF_ERROR(reader_->Read(past, options.verify, options.priority));
  for (size_t next = 0; next < claimed.claims.size(); ++next) {
    MemoryTier::Claim& claim = claimed.claims[next];
    if (claim.role() != Role::kFill) continue;
    tier_->Publish(claim);
    copies.push_back(CopyOut(items[claimed.item_of[next]], *claim.entry()));
  }
  CopyAll(copies);
  copies.clear();
  past.clear();
  for (size_t next = 0; next < claimed.claims.size(); ++next) {
    if (claimed.claims[next].role() != Role::kJoin) continue;
    const ReadItem& item = items[claimed.item_of[next]];
    // Copied at once: the entry may not be kept while another one is waited for.
    if (const auto entry = tier_->Join(claimed.claims[next]); entry != nullptr) {
      const MemoryCopy copy = CopyOut(item, *entry);
      CopyAll({&copy, 1});
    } else {
      past.push_back(item);
    }
  }
  return past.empty() ? absl::OkStatus() : reader_->Read(past, options.verify, options.priority);
}

absl::StatusOr<std::vector<std::shared_ptr<TierEntry>>> TieredReader::Hold(std::span<const ReadItem> items,
                                                                           const ReadOptions& options, bool ahead) {
  std::vector<std::shared_ptr<TierEntry>> entries(items.size());
  Claims claimed = ClaimItems(*tier_, items, UseOf(options, ahead), /*whole_objects=*/true);
  std::vector<ReadItem> fills;
  for (size_t next = 0; next < claimed.claims.size(); ++next) {
    const MemoryTier::Claim& claim = claimed.claims[next];
    if (claim.role() == Role::kHit) entries[claimed.item_of[next]] = claim.entry();
    if (claim.role() == Role::kFill) fills.push_back(FillOf(items[claimed.item_of[next]], claim));
  }
  if (!fills.empty()) TS_RETURN_IF_ERROR(reader_->Read(fills, /*verify=*/true, options.priority));
  for (size_t next = 0; next < claimed.claims.size(); ++next) {
    MemoryTier::Claim& claim = claimed.claims[next];
    if (claim.role() != Role::kFill) continue;
    tier_->Publish(claim);
    entries[claimed.item_of[next]] = claim.entry();
  }
  for (size_t next = 0; next < claimed.claims.size(); ++next) {
    if (claimed.claims[next].role() == Role::kJoin) {
      entries[claimed.item_of[next]] = tier_->Join(claimed.claims[next]);
    }
  }
  return entries;
}

bool FillFromPut(MemoryTier::Claim& claim, std::span<const std::byte> bytes, const ObjectRecord& record,
                 std::span<const uint64_t> sums) {
  const std::span<std::byte> memory = claim.entry()->bytes();
  const MemoryCopy copy{bytes.data(), memory.data(), bytes.size()};
  CopyAll({&copy, 1});
  const std::vector<Sum128> found = HashBlocks(memory, record.block_log2);
  return std::ranges::equal(found, sums, [](const Sum128& hash, uint64_t sum) { return hash.low == sum; });
}

}  // namespace tensorshelf
