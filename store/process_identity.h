// Who this process is, for lock files: text that a person reads in "locked by ...".

#ifndef TENSORSHELF_STORE_PROCESS_IDENTITY_H_
#define TENSORSHELF_STORE_PROCESS_IDENTITY_H_

#include <string>

namespace tensorshelf {

// "pid=123 host=name boot=<boot id> since=2026-11-27T10:00:00Z"; an unreadable part is "unknown".
std::string HolderText();

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_PROCESS_IDENTITY_H_
