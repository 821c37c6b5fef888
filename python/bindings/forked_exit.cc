#include "python/bindings/forked_exit.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace tensorshelf {
namespace {

void EndIfForked(int status, void* owner) {
  if (::getpid() == static_cast<pid_t>(reinterpret_cast<intptr_t>(owner))) return;
  std::fflush(nullptr);
  ::_exit(status);
}

}  // namespace

void SkipInheritedExitHandlers() {
  // on_exit(3) fails only without memory; then a forked child may hang at its exit, as it would without this.
  static_cast<void>(::on_exit(&EndIfForked, reinterpret_cast<void*>(static_cast<intptr_t>(::getpid()))));
}

}  // namespace tensorshelf
