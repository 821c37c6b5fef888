// Read guards: between a reader's lookup and its lease nothing that the lookup may have found is freed. No lock is held
// across an index read; the commit thread only asks for the oldest commit that someone may still be looking at.
//
// Protocol. `published` is the number of the newest commit that readers can see.
//   reader:    K = published; slot := K; if published != K, again; look up, lease; slot := idle
//   reclaimer: the rows of commit D are in the index; published := D; then min over slots and views;
//              what D dropped may be freed iff that minimum is >= D (and no lease holds it)
//
// Why it is right. All four accesses to `published` and a slot are seq_cst, so they have one total order S. Let a
// reader be active with slot value K < D. It left its loop because its last read of `published` gave K, so that read
// stands before the store of D in S (`published` only rises), and its store of K into the slot stands before the read.
// The reclaimer scans after it stored D. So in S: slot := K, read K, published := D, scan; the scan sees K or what the
// same slot held later, and a later value means that the reader has ended: its exit is a release that the scan
// acquires, so its index reads and its lease happened before the free. A reader with K >= D reads the index after it
// saw `published` >= D, that is after the rows of D were written, and does not find what D dropped. A view holds K
// under a mutex instead. If its entry comes before the scan's, the scan sees it. If not, the scan's unlock happens
// before the view's lock, hence the store of D before the view's re-read of `published`: it sees D, and K >= D.

#ifndef TENSORSHELF_STORE_READ_GUARD_H_
#define TENSORSHELF_STORE_READ_GUARD_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"

namespace tensorshelf {

// Thread-safe.
class ReadGuards {
 public:
  static constexpr size_t kSlots = 256;
  static constexpr uint64_t kNobody = std::numeric_limits<uint64_t>::max();

  // Ends when destroyed. Movable; at most one thread at a time. Keep it short: a lookup and an Acquire, never data I/O.
  class Guard {
   public:
    Guard(Guard&& other) noexcept : slot_(other.slot_), commit_(other.commit_) { other.slot_ = nullptr; }
    Guard& operator=(Guard&&) = delete;
    ~Guard() { Exit(); }

    void Exit();
    uint64_t commit() const { return commit_; }  // the reader sees at least this commit

   private:
    friend class ReadGuards;
    Guard(std::atomic<uint64_t>* slot, uint64_t commit) : slot_(slot), commit_(commit) {}
    std::atomic<uint64_t>* slot_;
    uint64_t commit_;
  };

  ReadGuards();
  ReadGuards(const ReadGuards&) = delete;
  ReadGuards& operator=(const ReadGuards&) = delete;

  // `published` must be written with seq_cst and never fall. Yields while all slots are taken.
  Guard Enter(const std::atomic<uint64_t>& published) {
    return EnterReading([&] { return published.load(std::memory_order_seq_cst); });
  }
  // For holders that live long (a consistent view of one commit): no slot is used. Returns the commit to give back to
  // LeaveView.
  uint64_t EnterView(const std::atomic<uint64_t>& published) {
    return EnterViewReading([&] { return published.load(std::memory_order_seq_cst); });
  }
  void LeaveView(uint64_t commit);

  // The same protocol over any seq_cst read of the published commit.
  template <typename ReadPublished>
  Guard EnterReading(ReadPublished read_published);
  template <typename ReadPublished>
  uint64_t EnterViewReading(ReadPublished read_published);

  // The smallest commit of all active guards and views, or kNobody. For the thread that publishes.
  uint64_t OldestActive() const;
  uint64_t active_guards() const;
  uint64_t active_views() const;

 private:
  struct alignas(64) Slot {
    std::atomic<uint64_t> commit{kNobody};
  };

  // Takes an idle slot for `commit`; null when there is none.
  std::atomic<uint64_t>* TakeSlot(uint64_t commit);
  void AddView(uint64_t commit);

  std::array<Slot, kSlots> slots_;
  mutable absl::Mutex mutex_;                                          // a leaf
  absl::btree_map<uint64_t, uint64_t> views_ ABSL_GUARDED_BY(mutex_);  // commit -> views of it
};

template <typename ReadPublished>
ReadGuards::Guard ReadGuards::EnterReading(ReadPublished read_published) {
  uint64_t commit = read_published();
  std::atomic<uint64_t>* slot;
  while ((slot = TakeSlot(commit)) == nullptr) {
    std::this_thread::yield();
    commit = read_published();
  }
  // Until this read the slot may have been empty for a reclaimer that published a newer commit and scanned.
  for (uint64_t now; (now = read_published()) != commit;) {
    commit = now;
    slot->store(commit, std::memory_order_seq_cst);
  }
  return Guard(slot, commit);
}

template <typename ReadPublished>
uint64_t ReadGuards::EnterViewReading(ReadPublished read_published) {
  uint64_t commit = read_published();
  AddView(commit);
  for (uint64_t now; (now = read_published()) != commit;) {
    AddView(now);
    LeaveView(commit);
    commit = now;
  }
  return commit;
}

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_READ_GUARD_H_
