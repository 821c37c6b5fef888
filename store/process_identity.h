// Who this process is, for lock files: text that a person reads in "locked by ...".

#ifndef TENSORSHELF_STORE_PROCESS_IDENTITY_H_
#define TENSORSHELF_STORE_PROCESS_IDENTITY_H_

#include <cstdint>
#include <string>

namespace tensorshelf {

// "pid=123 host=name boot=<boot id> since=2026-11-27T10:00:00Z"; an unreadable part is "unknown".
std::string HolderText();

// When this process started, in clock ticks since the machine did (field 22 of /proc/self/stat), and its name as ps
// shows it. Together with the pid no other process of this boot has them. 0 and empty where /proc does not say.
struct ProcessStart {
  uint64_t ticks = 0;
  std::string program;
};
ProcessStart StartOfThisProcess();

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_PROCESS_IDENTITY_H_
