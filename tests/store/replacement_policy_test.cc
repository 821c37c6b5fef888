// The replacement policy finds what recurs, and neither scans nor sweeps push that out. A simulated tier of keys and
// sizes runs traces through it; shares of hits are compared with LRU and with what is possible.

#include "store/replacement_policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <list>
#include <random>
#include <unordered_map>
#include <vector>

namespace tensorshelf {
namespace {

using Standing = ReplacementPolicy::Standing;

// What MemoryTier does with the policy, without memory.
class SimulatedTier {
 public:
  explicit SimulatedTier(uint64_t capacity) : capacity_(capacity), policy_(capacity) {}

  // True: a hit.
  bool Access(uint64_t key, uint64_t bytes = 1, Standing standing = Standing::kNormal) {
    if (const auto found = places_.find(key); found != places_.end()) {
      if (standing == Standing::kSweep) policy_.Advance(bytes);
      policy_.Touch(found->second);
      return true;
    }
    policy_.Advance(bytes);
    while (held_ + bytes > capacity_) {
      const auto victim = policy_.ChooseVictim({.key = key, .standing = standing}, may_go);
      if (!victim.has_value()) {
        if (standing == Standing::kNormal) policy_.TurnAway(key, bytes);
        return false;
      }
      held_ -= (*victim)->bytes;
      places_.erase((*victim)->key);
      policy_.Evict(*victim);
    }
    held_ += bytes;
    places_.emplace(key, policy_.Insert(key, bytes, standing));
    return false;
  }
  bool Holds(uint64_t key) const { return places_.contains(key); }
  uint64_t held() const { return held_; }
  size_t size() const { return places_.size(); }
  ReplacementPolicy& policy() { return policy_; }
  ReplacementPolicy::Place PlaceOf(uint64_t key) { return places_.at(key); }

  std::function<bool(uint64_t)> may_go = [](uint64_t) { return true; };

 private:
  const uint64_t capacity_;
  uint64_t held_ = 0;
  ReplacementPolicy policy_;
  std::unordered_map<uint64_t, ReplacementPolicy::Place> places_;
};

class Lru {
 public:
  explicit Lru(size_t capacity) : capacity_(capacity) {}
  bool Access(uint64_t key) {
    const auto found = places_.find(key);
    const bool hit = found != places_.end();
    if (hit) order_.erase(found->second);
    order_.push_front(key);
    places_[key] = order_.begin();
    if (places_.size() > capacity_) {
      places_.erase(order_.back());
      order_.pop_back();
    }
    return hit;
  }

 private:
  const size_t capacity_;
  std::list<uint64_t> order_;
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

// Keys 0 .. count-1, the k-th with a share of 1/(k+1).
std::vector<uint64_t> ZipfTrace(size_t count, size_t length, uint64_t seed) {
  std::vector<double> weights(count);
  for (size_t i = 0; i < count; ++i) weights[i] = 1.0 / static_cast<double>(i + 1);
  std::discrete_distribution<uint64_t> keys(weights.begin(), weights.end());
  std::mt19937_64 random(seed);
  std::vector<uint64_t> trace(length);
  for (uint64_t& key : trace) key = keys(random);
  return trace;
}

double Share(size_t hits, size_t accesses) { return static_cast<double>(hits) / static_cast<double>(accesses); }

TEST(ReplacementPolicyTest, ZipfIsServedNoWorseThanByLru) {
  SimulatedTier tier(1000);
  Lru lru(1000);
  size_t hits = 0;
  size_t lru_hits = 0;
  const std::vector<uint64_t> trace = ZipfTrace(10000, 200000, 1);
  for (const uint64_t key : trace) {
    hits += tier.Access(key);
    lru_hits += lru.Access(key);
  }
  EXPECT_GE(Share(hits, trace.size()), Share(lru_hits, trace.size()));
  EXPECT_LE(tier.held(), 1000u);
}

TEST(ReplacementPolicyTest, OneShotScansCostZipfLittle) {
  const std::vector<uint64_t> trace = ZipfTrace(10000, 200000, 2);
  SimulatedTier alone(1000);
  SimulatedTier tier(1000);
  Lru lru(1000);
  size_t alone_hits = 0;
  size_t hits = 0;
  size_t lru_hits = 0;
  uint64_t next_once = 1000000;
  for (size_t i = 0; i < trace.size(); ++i) {
    alone_hits += alone.Access(trace[i]);
    hits += tier.Access(trace[i]);
    lru_hits += lru.Access(trace[i]);
    // Every 10 000 accesses a scan of twice the capacity.
    for (int once = 0; i % 10000 == 0 && once < 2000; ++once, ++next_once) {
      EXPECT_FALSE(tier.Access(next_once));
      lru.Access(next_once);
    }
  }
  EXPECT_GT(hits, lru_hits);
  EXPECT_GT(Share(hits, trace.size()), Share(alone_hits, trace.size()) - 0.03);
}

TEST(ReplacementPolicyTest, AHotSetSurvivesAScanOfTenCapacities) {
  SimulatedTier tier(100);
  for (int round = 0; round < 3; ++round) {
    for (uint64_t key = 0; key < 80; ++key) tier.Access(key);
  }
  for (uint64_t key = 1000; key < 2000; ++key) tier.Access(key);
  size_t held = 0;
  for (uint64_t key = 0; key < 80; ++key) held += tier.Holds(key);
  EXPECT_GE(held, 76u);
}

TEST(ReplacementPolicyTest, ACyclicSweepOverTwiceTheCapacityHitsNearlyHalf) {
  SimulatedTier tier(100);
  for (uint64_t key = 1000; key < 1100; ++key) tier.Access(key);  // full of what nobody wants again
  size_t hits = 0;
  for (int round = 0; round < 11; ++round) {
    for (uint64_t key = 0; key < 200; ++key) hits += tier.Access(key, 1, Standing::kSweep) && round > 0;
  }
  EXPECT_GE(Share(hits, 10 * 200), 0.45);
}

TEST(ReplacementPolicyTest, ASweepThatNobodyComesBackToGivesWayToTheNext) {
  SimulatedTier tier(100);
  for (int round = 0; round < 5; ++round) {
    for (uint64_t key = 0; key < 200; ++key) tier.Access(key, 1, Standing::kSweep);
  }
  size_t hits = 0;
  for (int round = 0; round < 30; ++round) {
    for (uint64_t key = 1000; key < 1200; ++key) hits += tier.Access(key, 1, Standing::kSweep) && round >= 20;
  }
  EXPECT_GE(Share(hits, 10 * 200), 0.45);
}

TEST(ReplacementPolicyTest, OthersGetHalfOfWhatASweepHasFilled) {
  SimulatedTier tier(100);
  for (int round = 0; round < 3; ++round) {
    for (uint64_t key = 0; key < 200; ++key) tier.Access(key, 1, Standing::kSweep);
  }
  size_t hits = 0;
  for (int round = 0; round < 20; ++round) {
    for (uint64_t key = 1000; key < 1040; ++key) hits += tier.Access(key) && round >= 10;
  }
  EXPECT_GE(Share(hits, 10 * 40), 0.95);
}

TEST(ReplacementPolicyTest, KeptMembersGiveWayToKeptNewcomersAlone) {
  SimulatedTier tier(100);
  for (uint64_t key = 0; key < 100; ++key) tier.Access(key, 1, Standing::kKept);
  for (uint64_t key = 1000; key < 1400; ++key) {
    tier.Access(key);
    tier.Access(key, 1, Standing::kSweep);
    tier.Access(key, 1, Standing::kAhead);
  }
  for (uint64_t key = 0; key < 100; ++key) EXPECT_TRUE(tier.Holds(key)) << key;
  tier.Access(2000, 1, Standing::kKept);
  EXPECT_TRUE(tier.Holds(2000));
  EXPECT_EQ(tier.policy().kept_count(), 100u);
}

TEST(ReplacementPolicyTest, KeptMembersThatNobodyReadsAreLeftBehind) {
  SimulatedTier tier(100);
  for (uint64_t key = 0; key < 100; ++key) tier.Access(key, 1, Standing::kKept);
  for (uint64_t key = 1000; key < 1000 + 17 * 100 + 200; ++key) {
    tier.Access(7);  // this one is read
    tier.Access(key);
  }
  EXPECT_TRUE(tier.Holds(7));
  EXPECT_LT(tier.policy().kept_count(), 100u);
}

TEST(ReplacementPolicyTest, ADemotedMemberGoesFirst) {
  SimulatedTier tier(100);
  for (uint64_t key = 0; key < 100; ++key) tier.Access(key);
  tier.Access(42);
  tier.policy().Demote(tier.PlaceOf(42));
  tier.Access(1000);
  EXPECT_FALSE(tier.Holds(42));
  EXPECT_EQ(tier.size(), 100u);
}

TEST(ReplacementPolicyTest, WhatIsReadAheadDoesNotPushOutItself) {
  SimulatedTier tier(100);
  for (uint64_t key = 0; key < 100; ++key) tier.Access(key);
  for (uint64_t key = 1000; key < 1075; ++key) tier.Access(key, 1, Standing::kAhead);
  for (uint64_t key = 1000; key < 1075; ++key) EXPECT_TRUE(tier.Holds(key)) << key;
}

TEST(ReplacementPolicyTest, MembersThatMayNotGoAreNeverChosenAndTheChoiceEnds) {
  SimulatedTier tier(100);
  tier.may_go = [](uint64_t key) { return key % 2 == 1; };
  for (uint64_t key = 0; key < 100; ++key) tier.Access(key);
  for (uint64_t key = 1001; key < 5001; key += 2) tier.Access(key);
  for (uint64_t key = 0; key < 100; key += 2) EXPECT_TRUE(tier.Holds(key)) << key;
  tier.may_go = [](uint64_t) { return false; };
  for (const Standing standing : {Standing::kNormal, Standing::kAhead, Standing::kSweep, Standing::kKept}) {
    EXPECT_FALSE(tier.policy().ChooseVictim({.key = 1, .standing = standing}, tier.may_go).has_value());
  }
}

TEST(ReplacementPolicyTest, BytesCountNotObjects) {
  SimulatedTier tier(1000);
  std::mt19937_64 random(3);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t key = random() % 500;
    const auto standing = static_cast<Standing>(random() % 4);
    tier.Access(key, 1 + key % 97, standing);
    ASSERT_LE(tier.held(), 1000u);
  }
  tier.Access(1000000, 1000, Standing::kKept);
  EXPECT_LE(tier.held(), 1000u);
}

}  // namespace
}  // namespace tensorshelf
