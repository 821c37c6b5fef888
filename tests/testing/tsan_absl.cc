// Tells the thread sanitizer what abseil's locks and reference counts order. Linked into every program of a
// thread-sanitized build.
//
// Debian's abseil is built without the sanitizer, so a Mutex there leaves no trace and everything that it guards looks
// like a race; so does the last owner of a Status that frees what the others have read. The linker's --wrap redirects
// our calls here; each wrapper says what it acquires and releases and calls the real function.
// tools/cmake/tsan_absl.cmake reads the symbol names out of this file.
//
// Conditions of those who wait are evaluated by abseil while the lock is held, also by the thread that is about to give
// it up, after it has said so here. The sanitizer ignores memory accesses between pre_lock and post_lock; where a lock
// is given up, reads are ignored too.
//
// Limits: Await and CondVar::Wait are taken to be called with the exclusive lock.

#include <sanitizer/tsan_interface.h>

#include <atomic>
#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace {

struct IgnoreReads {
  IgnoreReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~IgnoreReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

using absl::Condition;
using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Time;

constexpr unsigned kExclusive = 0;
constexpr unsigned kShared = __tsan_mutex_read_lock;

template <typename Call>
void Locking(Mutex* mu, unsigned mode, Call call) {
  __tsan_mutex_pre_lock(mu, mode);
  call();
  __tsan_mutex_post_lock(mu, mode, 0);
}

template <typename Call>
bool TryLocking(Mutex* mu, unsigned mode, Call call) {
  __tsan_mutex_pre_lock(mu, mode | __tsan_mutex_try_lock);
  const bool locked = call();
  __tsan_mutex_post_lock(mu, mode | __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed), 0);
  return locked;
}

template <typename Call>
void Unlocking(Mutex* mu, unsigned mode, Call call) {
  __tsan_mutex_pre_unlock(mu, mode);
  {
    const IgnoreReads conditions;
    call();
  }
  __tsan_mutex_post_unlock(mu, mode);
}

// A wait that gives the lock up and has it again when it returns.
template <typename Call>
auto Waiting(Mutex* mu, Call call) {
  __tsan_mutex_pre_unlock(mu, kExclusive);
  __tsan_mutex_post_unlock(mu, kExclusive);
  __tsan_mutex_pre_lock(mu, kExclusive);
  struct Relock {
    Mutex* mu;
    ~Relock() { __tsan_mutex_post_lock(mu, kExclusive, 0); }
  } relock{mu};
  return call();
}

// HasBeenNotifiedInternal gets the address of the flag, the others that of the Notification, which is {Mutex, flag}.
void* FlagOf(const void* notification) {
  return const_cast<char*>(static_cast<const char*>(notification)) + sizeof(Mutex);
}

bool Acquired(bool happened, void* address) {
  if (happened) {
    __tsan_acquire(address);
  }
  return happened;
}

}  // namespace

// Declares the real function and opens the definition of its wrapper; both take `this` as their first argument.
#define WRAP(result, symbol, ...)                 \
  extern "C" result __real_##symbol(__VA_ARGS__); \
  extern "C" result __wrap_##symbol(__VA_ARGS__); \
  extern "C" result __wrap_##symbol(__VA_ARGS__)

WRAP(void, _ZN4absl7debian35MutexD1Ev, Mutex* mu) {
  __tsan_mutex_destroy(mu, __tsan_mutex_not_static);
  __real__ZN4absl7debian35MutexD1Ev(mu);
}
WRAP(void, _ZN4absl7debian35Mutex4LockEv, Mutex* mu) {
  Locking(mu, kExclusive, [&] { __real__ZN4absl7debian35Mutex4LockEv(mu); });
}
WRAP(void, _ZN4absl7debian35Mutex6UnlockEv, Mutex* mu) {
  Unlocking(mu, kExclusive, [&] { __real__ZN4absl7debian35Mutex6UnlockEv(mu); });
}
WRAP(bool, _ZN4absl7debian35Mutex7TryLockEv, Mutex* mu) {
  return TryLocking(mu, kExclusive, [&] { return __real__ZN4absl7debian35Mutex7TryLockEv(mu); });
}
WRAP(void, _ZN4absl7debian35Mutex10ReaderLockEv, Mutex* mu) {
  Locking(mu, kShared, [&] { __real__ZN4absl7debian35Mutex10ReaderLockEv(mu); });
}
WRAP(void, _ZN4absl7debian35Mutex12ReaderUnlockEv, Mutex* mu) {
  Unlocking(mu, kShared, [&] { __real__ZN4absl7debian35Mutex12ReaderUnlockEv(mu); });
}
WRAP(bool, _ZN4absl7debian35Mutex13ReaderTryLockEv, Mutex* mu) {
  return TryLocking(mu, kShared, [&] { return __real__ZN4absl7debian35Mutex13ReaderTryLockEv(mu); });
}
WRAP(void, _ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE, Mutex* mu, const Condition& condition) {
  Locking(mu, kExclusive, [&] { __real__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(mu, condition); });
}
WRAP(bool, _ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE, Mutex* mu,
     const Condition& condition, Duration timeout) {
  __tsan_mutex_pre_lock(mu, kExclusive);
  const bool met =
      __real__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(mu, condition, timeout);
  __tsan_mutex_post_lock(mu, kExclusive, 0);
  return met;
}
WRAP(bool, _ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE, Mutex* mu,
     const Condition& condition, Time deadline) {
  __tsan_mutex_pre_lock(mu, kExclusive);
  const bool met =
      __real__ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE(mu, condition, deadline);
  __tsan_mutex_post_lock(mu, kExclusive, 0);
  return met;
}
WRAP(void, _ZN4absl7debian35Mutex14ReaderLockWhenERKNS0_9ConditionE, Mutex* mu, const Condition& condition) {
  Locking(mu, kShared, [&] { __real__ZN4absl7debian35Mutex14ReaderLockWhenERKNS0_9ConditionE(mu, condition); });
}
WRAP(void, _ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE, Mutex* mu, const Condition& condition) {
  Waiting(mu, [&] { __real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(mu, condition); });
}
WRAP(bool, _ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE, Mutex* mu,
     const Condition& condition, Duration timeout) {
  return Waiting(mu, [&] {
    return __real__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(mu, condition, timeout);
  });
}
WRAP(bool, _ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE, Mutex* mu, const Condition& condition,
     Time deadline) {
  return Waiting(mu, [&] {
    return __real__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(mu, condition, deadline);
  });
}
WRAP(void, _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE, CondVar* condition, Mutex* mu) {
  Waiting(mu, [&] { __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(condition, mu); });
}
WRAP(bool, _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE, CondVar* condition, Mutex* mu,
     Duration timeout) {
  return Waiting(mu, [&] {
    return __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(condition, mu, timeout);
  });
}
WRAP(bool, _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE, CondVar* condition, Mutex* mu,
     Time deadline) {
  return Waiting(mu, [&] {
    return __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(condition, mu, deadline);
  });
}
WRAP(void, _ZN4absl7debian312Notification6NotifyEv, void* notification) {
  __tsan_release(FlagOf(notification));
  const IgnoreReads conditions;
  __real__ZN4absl7debian312Notification6NotifyEv(notification);
}
WRAP(bool, _ZN4absl7debian312Notification23HasBeenNotifiedInternalEPKSt6atomicIbE, const std::atomic<bool>* flag) {
  return Acquired(__real__ZN4absl7debian312Notification23HasBeenNotifiedInternalEPKSt6atomicIbE(flag),
                  const_cast<std::atomic<bool>*>(flag));
}
WRAP(void, _ZNK4absl7debian312Notification19WaitForNotificationEv, const void* notification) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(notification);
  __tsan_acquire(FlagOf(notification));
}
WRAP(bool, _ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE, const void* notification,
     Duration timeout) {
  return Acquired(
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(notification, timeout),
      FlagOf(notification));
}
WRAP(bool, _ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE, const void* notification,
     Time deadline) {
  return Acquired(
      __real__ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE(notification, deadline),
      FlagOf(notification));
}
WRAP(bool, _ZN4absl7debian315BlockingCounter14DecrementCountEv, void* counter) {
  __tsan_release(counter);
  const IgnoreReads conditions;
  return Acquired(__real__ZN4absl7debian315BlockingCounter14DecrementCountEv(counter), counter);
}
WRAP(void, _ZN4absl7debian315BlockingCounter4WaitEv, void* counter) {
  __real__ZN4absl7debian315BlockingCounter4WaitEv(counter);
  __tsan_acquire(counter);
}
WRAP(bool, _ZN4absl7debian37Barrier5BlockEv, void* barrier) {
  __tsan_release(barrier);
  const IgnoreReads conditions;
  const bool last = __real__ZN4absl7debian37Barrier5BlockEv(barrier);
  __tsan_acquire(barrier);
  return last;
}
// The count is dropped inside: each owner's reads come before its own call, and the last one's free after all of those.
WRAP(void, _ZN4absl7debian36Status15UnrefNonInlinedEm, uintptr_t representation) {
  // An odd number is the address plus one; the sanitizer is told the address.
  void* const address = reinterpret_cast<void*>(representation & ~uintptr_t{3});
  __tsan_release(address);
  __tsan_acquire(address);
  __real__ZN4absl7debian36Status15UnrefNonInlinedEm(representation);
}
