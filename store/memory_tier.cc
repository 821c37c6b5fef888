#include "store/memory_tier.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

using Standing = ReplacementPolicy::Standing;

// How much more than the newcomer needs may be pushed out for it before a run of its length is free.
constexpr uint64_t kPushedOutMax = 8;

uint64_t UnitsOf(uint64_t bytes) { return (bytes + TierArena::kUnit - 1) / TierArena::kUnit; }

Standing StandingOf(const MemoryTier::Use& use) {
  if (use.cache == CacheHint::kKeep) return Standing::kKept;
  if (use.order == AccessOrder::kSweep) return Standing::kSweep;
  return use.ahead ? Standing::kAhead : Standing::kNormal;
}

void Count(std::atomic<uint64_t>& counter, uint64_t count = 1) { counter.fetch_add(count, std::memory_order_relaxed); }

}  // namespace

// --- entries and leases ---

TierEntry::TierEntry(std::shared_ptr<TierArena> arena, const UnitRun& run, const ObjectRecord& record)
    : arena(std::move(arena)),
      run(run),
      generation(record.generation),
      fingerprint(record.fingerprint),
      size(record.logical_bytes) {}

TierEntry::~TierEntry() {
  if (!arena->forked()) arena->GiveBack(run);
}

uint64_t LeaseBook::Add(const TierEntry* entry) {
  absl::MutexLock lock(&mutex_);
  if (++leases_of_[entry] == 1) bytes_ += entry->size;
  granted_.emplace_hint(granted_.end(), ++next_, absl::Now());
  return next_;
}

void LeaseBook::Remove(uint64_t number, const TierEntry* entry) {
  absl::MutexLock lock(&mutex_);
  granted_.erase(number);
  const auto at = leases_of_.find(entry);
  TS_CHECK(at != leases_of_.end());
  if (--at->second > 0) return;
  leases_of_.erase(at);
  bytes_ -= entry->size;
}

void LeaseBook::ReadInto(MemoryTierStats& stats) const {
  absl::MutexLock lock(&mutex_);
  stats.leases = granted_.size();
  stats.leased_bytes = bytes_;
  if (!granted_.empty()) stats.oldest_lease_s = absl::ToDoubleSeconds(absl::Now() - granted_.begin()->second);
}

struct MemoryLease::Grant {
  Grant(std::shared_ptr<TierEntry> held, std::shared_ptr<LeaseBook> book)
      : entry(std::move(held)), book(std::move(book)), number(this->book->Add(entry.get())) {}
  ~Grant() {
    if (!entry->arena->forked()) book->Remove(number, entry.get());
  }

  const std::shared_ptr<TierEntry> entry;
  const std::shared_ptr<LeaseBook> book;
  const uint64_t number;
};

MemoryLease::MemoryLease() = default;
MemoryLease::MemoryLease(std::unique_ptr<Grant> grant) : grant_(std::move(grant)) {}
MemoryLease::MemoryLease(MemoryLease&&) noexcept = default;
MemoryLease& MemoryLease::operator=(MemoryLease&&) noexcept = default;
MemoryLease::~MemoryLease() = default;
std::span<const std::byte> MemoryLease::bytes() const { return grant_->entry->bytes(); }

// --- claims ---

MemoryTier::Claim::Claim(Claim&& other) noexcept
    : role_(std::exchange(other.role_, Role::kBypass)),
      tier_(std::exchange(other.tier_, nullptr)),
      entry_(std::move(other.entry_)),
      flight_(std::move(other.flight_)),
      standing_(other.standing_) {}

MemoryTier::Claim& MemoryTier::Claim::operator=(Claim&& other) noexcept {
  if (this == &other) return *this;
  Abandon();
  role_ = std::exchange(other.role_, Role::kBypass);
  tier_ = std::exchange(other.tier_, nullptr);
  entry_ = std::move(other.entry_);
  flight_ = std::move(other.flight_);
  standing_ = other.standing_;
  return *this;
}

MemoryTier::Claim::~Claim() { Abandon(); }

void MemoryTier::Claim::Abandon() {
  if (tier_ != nullptr && flight_ != nullptr) tier_->EndFlight(flight_, pending_bytes());
  tier_ = nullptr;
  flight_ = nullptr;
  entry_ = nullptr;
}

uint64_t MemoryTier::Claim::pending_bytes() const {
  return standing_ == Standing::kNormal ? entry_->run.units * TierArena::kUnit : 0;
}

// --- the tier ---

absl::StatusOr<std::unique_ptr<MemoryTier>> MemoryTier::Create(const Options& options) {
  TS_ASSIGN_OR_RETURN(auto arena, TierArena::Create(options.capacity, options.page_locked, options.hooks));
  return std::unique_ptr<MemoryTier>(new MemoryTier(std::move(arena)));
}

MemoryTier::MemoryTier(std::shared_ptr<TierArena> arena)
    : arena_(std::move(arena)), book_(std::make_shared<LeaseBook>()), policy_(arena_->capacity()) {}

MemoryTier::~MemoryTier() = default;

const MemoryTier::Resident* MemoryTier::FindLocked(const ObjectRecord& record) const {
  const auto found = residents_.find(record.generation);
  return found != residents_.end() && found->second.entry->Holds(record) ? &found->second : nullptr;
}

MemoryTier::Claim MemoryTier::HitLocked(const Resident& resident, const Use& use) {
  if (use.order == AccessOrder::kSweep) policy_.Advance(resident.entry->size);
  if (!use.ahead) policy_.Touch(resident.place);
  Claim claim;
  claim.role_ = Claim::Role::kHit;
  claim.entry_ = resident.entry;
  return claim;
}

std::vector<MemoryTier::Claim> MemoryTier::ClaimAll(std::span<const Wish> wishes, const Use& use) {
  std::vector<Claim> claims(wishes.size());
  uint64_t hit_count = 0;
  uint64_t hit_bytes = 0;
  {
    absl::ReaderMutexLock lock(&mutex_);
    for (size_t i = 0; i < wishes.size(); ++i) {
      const Resident* resident = FindLocked(*wishes[i].record);
      if (resident == nullptr) continue;
      claims[i] = HitLocked(*resident, use);
      ++hit_count;
      hit_bytes += resident->entry->size;
    }
  }
  Count(hits_, hit_count);
  Count(hit_bytes_, hit_bytes);
  const bool moves_hits = hit_count > 0 && use.cache != CacheHint::kNone;
  if (hit_count == wishes.size() && !moves_hits) return claims;
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < wishes.size(); ++i) {
    if (claims[i].role() != Claim::Role::kHit) {
      Count(misses_);
      claims[i] = MissLocked(wishes[i], use);
      if (claims[i].role() == Claim::Role::kJoin) Count(joined_);
      continue;
    }
    const Resident* resident = moves_hits ? FindLocked(*wishes[i].record) : nullptr;
    if (resident == nullptr) continue;
    if (use.cache == CacheHint::kOnce) {
      policy_.Demote(resident->place);
    } else if (!policy_.IsKept(resident->place)) {
      policy_.Keep(resident->place);
    }
  }
  return claims;
}

MemoryTier::Claim MemoryTier::MissLocked(const Wish& wish, const Use& use) {
  const ObjectRecord& record = *wish.record;
  if (const Resident* resident = FindLocked(record); resident != nullptr) return HitLocked(*resident, use);
  Claim claim;
  const auto flying = flights_.find(record.generation);
  if (flying != flights_.end()) {
    claim.role_ = Claim::Role::kJoin;
    claim.flight_ = flying->second;
    return claim;
  }
  policy_.Advance(record.logical_bytes);
  if (!wish.whole || use.cache == CacheHint::kOnce) return claim;
  claim.standing_ = StandingOf(use);
  claim.entry_ = MakeRoomLocked(record, claim.standing_, /*may_evict=*/true);
  if (claim.entry_ == nullptr) return claim;
  claim.role_ = Claim::Role::kFill;
  claim.tier_ = this;
  pending_bytes_ += claim.pending_bytes();
  claim.flight_ = std::make_shared<Flight>();
  claim.flight_->generation = record.generation;
  flights_.emplace(record.generation, claim.flight_);
  return claim;
}

MemoryTier::Claim MemoryTier::ClaimForPut(const ObjectRecord& record, CacheHint cache) {
  Claim claim;
  if (cache == CacheHint::kOnce) return claim;
  absl::MutexLock lock(&mutex_);
  claim.standing_ = StandingOf({.cache = cache});
  claim.entry_ = MakeRoomLocked(record, claim.standing_, /*may_evict=*/cache == CacheHint::kKeep);
  if (claim.entry_ == nullptr) return claim;
  claim.role_ = Claim::Role::kFill;
  claim.tier_ = this;
  return claim;
}

std::shared_ptr<TierEntry> MemoryTier::MakeRoomLocked(const ObjectRecord& record, Standing standing, bool may_evict) {
  const uint64_t units = UnitsOf(record.logical_bytes);
  uint64_t may_push_out = units * TierArena::kUnit * kPushedOutMax;
  std::optional<UnitRun> run;
  if (units > 0 && units * TierArena::kUnit <= arena_->capacity()) {
    run = arena_->Take(units);
    // Only the tier refers to an entry with a count of one, and nobody can come to it while the lock is held.
    const auto may_go = [this](uint64_t generation) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return residents_.find(generation)->second.entry.use_count() == 1;
    };
    while (!run.has_value() && may_evict && may_push_out > 0) {
      const auto victim = policy_.ChooseVictim(
          {.key = record.generation, .standing = standing, .pending_bytes = pending_bytes_}, may_go);
      if (!victim.has_value()) break;
      may_push_out -= std::min(may_push_out, (*victim)->bytes);
      EraseLocked((*victim)->key, /*evicted=*/true);
      run = arena_->Take(units);
    }
  }
  if (!run.has_value()) {
    Count(rejected_);
    if (standing == Standing::kNormal && may_evict) policy_.TurnAway(record.generation, units * TierArena::kUnit);
    return nullptr;
  }
  return std::make_shared<TierEntry>(arena_, *run, record);
}

void MemoryTier::EraseLocked(uint64_t generation, bool evicted) {
  const auto found = residents_.find(generation);
  if (evicted) {
    policy_.Evict(found->second.place);
    Count(evictions_);
  } else {
    policy_.Erase(found->second.place);
  }
  residents_.erase(found);
}

void MemoryTier::Publish(Claim& fill) {
  TS_CHECK(fill.role_ == Claim::Role::kFill && fill.tier_ == this);
  const std::shared_ptr<Flight> flight = std::move(fill.flight_);
  const TierEntry& entry = *fill.entry_;
  {
    absl::MutexLock lock(&mutex_);
    const bool is_wanted = flight == nullptr || !flight->dropped.load(std::memory_order_relaxed);
    if (is_wanted && !residents_.contains(entry.generation)) {
      const auto place = policy_.Insert(entry.generation, entry.run.units * TierArena::kUnit, fill.standing_);
      residents_.emplace(entry.generation, Resident{fill.entry_, place});
      Count(admissions_);
    }
  }
  fill.tier_ = nullptr;
  if (flight == nullptr) return;
  flight->entry = fill.entry_;
  EndFlight(flight, fill.pending_bytes());
}

void MemoryTier::EndFlight(const std::shared_ptr<Flight>& flight, uint64_t pending_bytes) {
  {
    absl::MutexLock lock(&mutex_);
    pending_bytes_ -= pending_bytes;
    const auto found = flights_.find(flight->generation);
    TS_CHECK(found != flights_.end() && found->second == flight);
    flights_.erase(found);
  }
  flight->done.Notify();
}

std::shared_ptr<TierEntry> MemoryTier::Join(const Claim& join) {
  join.flight_->done.WaitForNotification();
  return join.flight_->entry;
}

void MemoryTier::Drop(uint64_t generation) {
  absl::MutexLock lock(&mutex_);
  if (residents_.contains(generation)) EraseLocked(generation, /*evicted=*/false);
  const auto flying = flights_.find(generation);
  if (flying != flights_.end()) flying->second->dropped.store(true, std::memory_order_relaxed);
}

MemoryLease MemoryTier::Grant(std::shared_ptr<TierEntry> entry) {
  return MemoryLease(std::make_unique<MemoryLease::Grant>(std::move(entry), book_));
}

MemoryTierStats MemoryTier::Retire() {
  {
    absl::MutexLock lock(&mutex_);
    while (!residents_.empty()) EraseLocked(residents_.begin()->first, /*evicted=*/false);
  }
  arena_->Retire();
  return stats();
}

MemoryTierStats MemoryTier::stats() const {
  MemoryTierStats stats;
  stats.capacity = arena_->capacity();
  stats.held_bytes = arena_->held_bytes();
  stats.hits = hits_.load();
  stats.misses = misses_.load();
  stats.hit_bytes = hit_bytes_.load();
  stats.joined_reads = joined_.load();
  stats.admissions = admissions_.load();
  stats.rejected = rejected_.load();
  stats.evictions = evictions_.load();
  stats.page_locked = arena_->page_locked();
  stats.huge_pages = arena_->huge_pages();
  book_->ReadInto(stats);
  absl::ReaderMutexLock lock(&mutex_);
  stats.objects = residents_.size();
  stats.kept_objects = policy_.kept_count();
  return stats;
}

}  // namespace tensorshelf
