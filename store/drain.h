// A device leaves a shelf that is in use: everything moves off it, then its data files belong to the shelf no more.
//
// What a crash after each step leaves:
//   1  labels say "draining"; nothing new is put there             the device is as any other again
//   2  moves, each as store/move.h has it                          the same, emptier
//   3  one commit without the rows of its files                    the device is out; its files are orphans
//   4  the files are removed, STORE does not name the device       the same, tidied

#ifndef TENSORSHELF_STORE_DRAIN_H_
#define TENSORSHELF_STORE_DRAIN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tensorshelf {

struct DrainReport {
  std::vector<std::string> files;  // paths of the data files that were removed
  uint64_t objects_moved = 0;
  uint64_t bytes_moved = 0;
  uint64_t commit = 0;   // that took the files out
  bool stopped = false;  // the device is still part of the shelf
};

struct DrainOptions {
  uint64_t rate_bytes_per_s = 0;    // copied, on average from the start; 0: as fast as it goes, behind everything else
  std::function<bool()> stop = {};  // as CompactOptions::stop
  std::function<void(const DrainReport& so_far)> progress = {};  // after each commit
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_DRAIN_H_
