// The number of this process without a system call, for what asks on every call whether it was forked. glibc does not
// keep it since 2.25.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_PROCESS_ID_H_
#define TENSORSHELF_ENGINE_FOUNDATION_PROCESS_ID_H_

#include <sys/types.h>

namespace tensorshelf {

// getpid(2), kept in a page that the kernel hands to forked children as zeros (MADV_WIPEONFORK of madvise(2), Linux
// 4.14; on older kernels each call is a system call). Thread-safe.
pid_t ProcessId();

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_PROCESS_ID_H_
