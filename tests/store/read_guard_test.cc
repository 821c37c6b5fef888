// Goal: nothing is freed while a reader that may have found it is active. Method: by hand, with commits published
// inside an entry, then readers against a reclaimer that poisons what it frees, which no reader may see under its
// guard.

#include "store/read_guard.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace tensorshelf {
namespace {

TEST(ReadGuards, TheOldestGuardCounts) {
  ReadGuards guards;
  std::atomic<uint64_t> published{5};
  EXPECT_EQ(guards.OldestActive(), ReadGuards::kNobody);
  std::optional<ReadGuards::Guard> first(guards.Enter(published));
  EXPECT_EQ(first->commit(), 5u);
  published = 8;
  ReadGuards::Guard second = guards.Enter(published);
  EXPECT_EQ(guards.OldestActive(), 5u);
  EXPECT_EQ(guards.active_guards(), 2u);
  first.reset();
  EXPECT_EQ(guards.OldestActive(), 8u);
  ReadGuards::Guard moved = std::move(second);
  EXPECT_EQ(guards.OldestActive(), 8u);
  moved.Exit();
  moved.Exit();
  EXPECT_EQ(guards.OldestActive(), ReadGuards::kNobody);
}

TEST(ReadGuards, ViewsCountAsWell) {
  ReadGuards guards;
  std::atomic<uint64_t> published{5};
  const uint64_t view = guards.EnterView(published), twin = guards.EnterView(published);
  published = 9;
  const uint64_t later = guards.EnterView(published);
  EXPECT_EQ(guards.active_views(), 3u);
  EXPECT_EQ(guards.OldestActive(), 5u);
  guards.LeaveView(view);
  EXPECT_EQ(guards.OldestActive(), 5u);
  guards.LeaveView(twin);
  EXPECT_EQ(guards.OldestActive(), 9u);
  guards.LeaveView(later);
  EXPECT_EQ(guards.OldestActive(), ReadGuards::kNobody);
}

// Commits that are published while a reader enters, one before each of its reads; it must end at one that stood still.
TEST(ReadGuards, ACommitPublishedDuringEntryIsNoticed) {
  ReadGuards guards;
  const std::vector<uint64_t> published = {5, 8, 9, 9, 12};
  size_t reads = 0;
  const auto read = [&] {
    if (reads > 0) {
      EXPECT_EQ(guards.OldestActive(), published[reads - 1]) << "a scan before read " << reads;
    }
    return published[reads++];
  };
  {
    const ReadGuards::Guard guard = guards.EnterReading(read);
    EXPECT_EQ(guard.commit(), 9u);
    EXPECT_EQ(reads, 4u);
    EXPECT_EQ(guards.OldestActive(), 9u);
  }
  reads = 0;
  const uint64_t view = guards.EnterViewReading(read);
  EXPECT_EQ(view, 9u);
  EXPECT_EQ(reads, 4u);
  EXPECT_EQ(guards.OldestActive(), 9u);
  EXPECT_EQ(guards.active_views(), 1u);
  guards.LeaveView(view);
  EXPECT_EQ(guards.OldestActive(), ReadGuards::kNobody);
}

TEST(ReadGuards, EverySlotCanBeTakenAndOneMoreWaits) {
  ReadGuards guards;
  std::atomic<uint64_t> published{1};
  std::deque<ReadGuards::Guard> held;
  for (size_t i = 0; i < ReadGuards::kSlots; ++i) held.push_back(guards.Enter(published));
  EXPECT_EQ(guards.active_guards(), ReadGuards::kSlots);
  published = 2;
  std::atomic<bool> entered{false};
  std::thread waiter([&] {
    const ReadGuards::Guard guard = guards.Enter(published);
    EXPECT_EQ(guard.commit(), 2u);
    entered = true;
  });
  EXPECT_FALSE(entered);  // it cannot: no slot is free until the next line
  held.pop_front();
  waiter.join();
  EXPECT_TRUE(entered);
  EXPECT_EQ(guards.OldestActive(), 1u);
}

// The index is one pointer to the current object; a commit replaces it, then publishes its number, and the old object
// waits in a list until no reader is older. Freeing is poisoning: the memory stays, so that the check itself is no
// error.
struct Object {
  std::atomic<uint64_t> value{1};
};

template <typename Read>
void RunAgainstReclaimer(Read read) {
  constexpr uint64_t kCommits = 20000;
  ReadGuards guards;
  std::deque<Object> objects(kCommits + 1);
  std::atomic<Object*> current{&objects[0]};
  std::atomic<uint64_t> published{0};
  std::atomic<bool> done{false};
  std::atomic<uint64_t> poison_seen{0}, reads{0};

  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      while (!done) {
        if (!read(guards, published, current)) ++poison_seen;
        ++reads;
      }
    });
  }
  struct Dropped {
    Object* object;
    uint64_t commit;
  };
  std::deque<Dropped> parked;
  uint64_t freed = 0;
  for (uint64_t commit = 1; commit <= kCommits || reads < 1000; ++commit) {
    if (commit <= kCommits) {
      Object* old = current.exchange(&objects[commit]);
      published.store(commit);
      parked.push_back({old, commit});
    }
    const uint64_t oldest = guards.OldestActive();
    while (!parked.empty() && oldest >= parked.front().commit) {
      parked.front().object->value.store(0);
      parked.pop_front();
      ++freed;
    }
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(poison_seen, 0u);
  EXPECT_GT(freed, 0u);
  EXPECT_EQ(guards.OldestActive(), ReadGuards::kNobody);
}

TEST(ReadGuards, NoReaderSeesWhatWasFreed) {
  RunAgainstReclaimer([](ReadGuards& guards, std::atomic<uint64_t>& published, std::atomic<Object*>& current) {
    const ReadGuards::Guard guard = guards.Enter(published);
    const Object* object = current.load();
    bool sound = true;
    for (int i = 0; i < 20; ++i) sound = sound && object->value.load() == 1;
    return sound;
  });
}

TEST(ReadGuards, NoViewSeesWhatWasFreed) {
  RunAgainstReclaimer([](ReadGuards& guards, std::atomic<uint64_t>& published, std::atomic<Object*>& current) {
    const uint64_t view = guards.EnterView(published);
    const Object* object = current.load();
    bool sound = true;
    for (int i = 0; i < 20; ++i) sound = sound && object->value.load() == 1;
    guards.LeaveView(view);
    return sound;
  });
}

}  // namespace
}  // namespace tensorshelf
