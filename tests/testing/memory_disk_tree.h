// The inside of MemoryDisk: sparse contents and a tree of nodes, each with its live image, its durable image and the
// list of what lies between the two. Not thread-safe; MemoryDisk guards it.

#ifndef TENSORSHELF_TESTS_TESTING_MEMORY_DISK_TREE_H_
#define TENSORSHELF_TESTS_TESTING_MEMORY_DISK_TREE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/testing/memory_disk.h"

namespace tensorshelf::testing {

// Bytes with holes that read as zeros. Copies share their chunks; a chunk that two contents share is never written.
class SparseBytes {
 public:
  static constexpr uint64_t kChunkSize = 64 << 10;

  uint64_t size() const { return size_; }
  size_t Read(uint64_t offset, std::span<std::byte> to) const;   // the bytes before the end
  void Write(uint64_t offset, std::span<const std::byte> from);  // grows as needed
  void Resize(uint64_t size);
  // Shares the chunks of [offset, offset + length) with `other`, holes included.
  void Share(const SparseBytes& other, uint64_t offset, uint64_t length);

 private:
  using Chunk = std::array<std::byte, kChunkSize>;
  std::byte* Writable(uint64_t chunk_index);

  uint64_t size_ = 0;
  std::map<uint64_t, std::shared_ptr<Chunk>> chunks_;
};

struct Node;

// A write or a change of size of a file that no Sync has covered.
struct UnsyncedData {
  uint64_t sequence;
  bool resize;
  uint64_t offset;  // of a resize: the new size
  std::vector<std::byte> bytes;
};

// A change of one directory that no SyncDirectory has covered. A rename inside a directory is one change; between two
// it is a removal here and an addition there, with the same sequence.
struct UnsyncedEntry {
  uint64_t sequence;
  std::string removed;  // empty: nothing
  std::string added;    // empty: nothing
  std::shared_ptr<Node> node;
};

// A file or a directory; the fields of the other kind stay empty.
struct Node {
  std::string path;  // as created or last renamed
  bool is_directory = false;
  bool has_name = true;  // false: removed or replaced, perhaps still open; its bytes count no more

  SparseBytes live;
  SparseBytes durable;
  std::vector<UnsyncedData> unsynced_data;  // in order

  std::map<std::string, std::shared_ptr<Node>> live_entries;
  std::map<std::string, std::shared_ptr<Node>> durable_entries;
  std::vector<UnsyncedEntry> unsynced_entries;  // in order

  void SyncData();
  void SyncEntries();
};

// What a crash leaves of `root`, everything in it durable.
std::shared_ptr<Node> TreeAfterCrash(const Node& root, const CrashPolicy& policy);

// Sums over the live tree under `root`.
uint64_t FileBytes(const Node& root);
size_t UnsyncedCount(const Node& root);

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_MEMORY_DISK_TREE_H_
