// What StoreCore does with its memory tier: setting it up, filling it from puts, leases, reading ahead.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kPrefetchStepBytes = uint64_t{32} << 20;  // or a quarter of the tier

}  // namespace

absl::Status StoreCore::SetUpMemoryTier() {
  if (options_.memory_bytes == 0) return absl::OkStatus();
  TS_ASSIGN_OR_RETURN(memory_tier_, MemoryTier::Create({.capacity = options_.memory_bytes,
                                                        .page_locked = options_.page_locked,
                                                        .hooks = options_.memory_hooks}));
  tiered_reader_ = std::make_unique<TieredReader>(reader_.get(), memory_tier_.get());
  prefetcher_ = std::make_unique<Prefetcher>(
      options_.memory_bytes / 4 * 3,
      [this](std::span<const std::string> names, const ReadOptions& options) { return PrefetchStep(names, options); });
  return absl::OkStatus();
}

MemoryTier::Claim StoreCore::StageInMemory(const PutItem& item, const StagedObject& staged) {
  if (memory_tier_ == nullptr || staged.is_unchanged || !LiesInExtents(*staged.record)) return {};
  MemoryTier::Claim claim = memory_tier_->ClaimForPut(*staged.record, item.cache);
  if (claim.role() != MemoryTier::Claim::Role::kFill) return {};
  const std::vector<uint64_t>& sums = staged.record->sums.empty() ? staged.sums : staged.record->sums;
  if (!FillFromPut(claim, item.bytes, *staged.record, sums)) return {};
  return claim;
}

absl::StatusOr<std::vector<MemoryLease>> StoreCore::Lease(std::span<const Object> objects, const ReadOptions& options) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  std::vector<MemoryLease> leases(objects.size());
  std::vector<ReadRequest> requests;
  std::vector<ReadItem> items;
  for (const Object& object : objects) {
    if (object.core_.get() != this) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", EscapeForTerminal(object.name_), "\" was found in another store"));
    }
    requests.push_back({.object = &object});
    items.push_back({.name = &object.name_, .record = object.record_.get(), .payload = object.payload_.get()});
  }
  if (memory_tier_ == nullptr) return leases;
  OperationTimer timer(meters_, Operation::kGet);
  auto entries = tiered_reader_->Hold(items, options, /*ahead=*/false);
  if (KindOf(entries.status()) == ErrorKind::kDeviceMissing && index_mode_ == Index::Mode::kBesideWriter) {
    TS_RETURN_IF_ERROR(AdoptNewFiles());
    entries = tiered_reader_->Hold(items, options, /*ahead=*/false);
  }
  if (!entries.ok()) {
    timer.End(entries.status(), 0, 0);
    return ReadFailed(requests, entries.status());
  }
  uint64_t granted = 0, granted_bytes = 0;
  for (size_t i = 0; i < objects.size(); ++i) {
    if ((*entries)[i] == nullptr) continue;
    ++granted;
    granted_bytes += (*entries)[i]->size;
    leases[i] = memory_tier_->Grant(std::move((*entries)[i]));
  }
  // Those without a lease come to Read, which counts them.
  if (granted > 0) timer.End(absl::OkStatus(), granted, granted_bytes, &objects[0].name_);
  return leases;
}

absl::Status StoreCore::Prefetch(std::span<const std::string> names, const ReadOptions& options) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  for (const std::string& name : names) TS_RETURN_IF_ERROR(ValidateName(name));
  if (prefetcher_ != nullptr) prefetcher_->Add(names, options);
  return absl::OkStatus();
}

absl::Status StoreCore::WaitForPrefetch() {
  {
    absl::ReaderMutexLock lock(&lifecycle_);
    TS_RETURN_IF_ERROR(CheckUsable());
  }
  if (prefetcher_ != nullptr) prefetcher_->WaitUntilIdle();  // without the lock, which a Close waits for
  return absl::OkStatus();
}

Prefetcher::Step StoreCore::PrefetchStep(std::span<const std::string> names, const ReadOptions& options) {
  absl::ReaderMutexLock lock(&lifecycle_);
  if (!CheckUsable().ok()) return {.names = names.size()};
  Prefetcher::Step step;
  std::vector<Object> objects;
  uint64_t wanted_bytes = 0;
  const uint64_t step_bytes_max = std::min(kPrefetchStepBytes, options_.memory_bytes / 4);
  while (step.names == 0 || (step.names < names.size() && wanted_bytes < step_bytes_max)) {
    absl::StatusOr<Object> found = FindLeased(names[step.names++], nullptr);
    if (!found.ok()) continue;
    wanted_bytes += found->size_bytes();
    objects.push_back(*std::move(found));
  }
  std::vector<ReadItem> items;
  for (const Object& object : objects) {
    items.push_back({.name = &object.name_, .record = object.record_.get(), .payload = object.payload_.get()});
  }
  ReadOptions background = options;
  background.priority = Priority::kBackground;
  const auto hold = [&](std::span<const ReadItem> some) {
    const auto entries = tiered_reader_->Hold(some, background, /*ahead=*/true);
    if (!entries.ok()) return false;
    for (const auto& entry : *entries) step.bytes += entry == nullptr ? 0 : entry->size;
    return true;
  };
  if (!hold(items)) {
    // One of them cannot be read; the get that asks for it will say why.
    for (const ReadItem& item : items) hold({&item, 1});
  }
  return step;
}

void StoreCore::RetireMemoryTier() {
  if (memory_tier_ == nullptr) return;
  const MemoryTierStats left = memory_tier_->Retire();
  if (left.leases == 0 || !options_.notice) return;
  options_.notice(absl::StrCat(path_, " was closed with ", left.leases, " leases on ", left.leased_bytes,
                               " bytes of its memory tier: that memory lives until the last of them is gone"));
}

}  // namespace tensorshelf
