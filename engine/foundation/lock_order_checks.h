// Debian builds abseil without NDEBUG, and with it the search for lock-order cycles at every lock of an absl::Mutex: a
// global spin lock and a graph. Tests want it. A program calls this once, before its threads start; a library leaves
// the choice to the program.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_LOCK_ORDER_CHECKS_H_
#define TENSORSHELF_ENGINE_FOUNDATION_LOCK_ORDER_CHECKS_H_

#include "absl/synchronization/mutex.h"

namespace tensorshelf {

inline void TurnOffLockOrderChecks() { absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore); }

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_LOCK_ORDER_CHECKS_H_
