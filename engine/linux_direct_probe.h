// Finds out how a file takes O_DIRECT transfers: what the kernel says, then whether it is true.

#ifndef TENSORSHELF_ENGINE_LINUX_DIRECT_PROBE_H_
#define TENSORSHELF_ENGINE_LINUX_DIRECT_PROBE_H_

#include "engine/disk.h"

namespace tensorshelf {

// `fd` is an O_DIRECT descriptor. With `may_write` (a file just created, writable and empty) a block is written, read
// back and cut off again; otherwise only read, because live bytes are never written for a test. `direct` is false in
// the result when the file system opened the file with O_DIRECT but refuses the transfers.
IoAlignment ProbeDirect(int fd, bool may_write);

// For files of others, opened in great numbers: what the kernel says is taken as it is, and only where it says nothing
// is a block read. A kernel that promises too much shows in the first transfer, as an error.
IoAlignment AskDirect(int fd);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_LINUX_DIRECT_PROBE_H_
