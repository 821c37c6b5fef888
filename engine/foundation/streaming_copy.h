// A copy into memory that nobody reads soon: stores that go past the caches ("non-temporal", Intel 64 optimisation
// manual, 9.6). memcpy first fetches every cache line that it overwrites, and pushes out of the caches what is needed
// next; glibc streams only from about three quarters of the last cache on, and pieces come here one by one.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_STREAMING_COPY_H_
#define TENSORSHELF_ENGINE_FOUNDATION_STREAMING_COPY_H_

#include <cstddef>
#include <cstdint>

namespace tensorshelf {

// As memcpy: any alignment and length in bytes, no overlap. Where the processor has no such stores, memcpy. What
// another thread sees of it is ordered as if it were memcpy.
void StreamingCopy(std::byte* to, const std::byte* from, uint64_t length);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_STREAMING_COPY_H_
