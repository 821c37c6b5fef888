// IoQueue on a libaio context. The only user of libaio.

#ifndef TENSORSHELF_ENGINE_LINUX_QUEUE_H_
#define TENSORSHELF_ENGINE_LINUX_QUEUE_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf {

// ResourceExhausted when the system's sum of depths would pass fs.aio-max-nr.
absl::StatusOr<std::unique_ptr<IoQueue>> NewLinuxQueue(size_t depth);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_LINUX_QUEUE_H_
