#include "tests/testing/memory_disk_tree.h"

#include <algorithm>
#include <cstring>

namespace tensorshelf::testing {
namespace {

constexpr uint64_t kSectorSize = 512;

// Calls visit(chunk_index, offset in the chunk, bytes before this piece, piece length) for each chunk of a range.
template <typename Visit>
void ForEachChunk(uint64_t offset, uint64_t length, Visit visit) {
  for (uint64_t done = 0; done < length;) {
    const uint64_t within = (offset + done) % SparseBytes::kChunkSize;
    const uint64_t piece = std::min(SparseBytes::kChunkSize - within, length - done);
    visit((offset + done) / SparseBytes::kChunkSize, within, done, piece);
    done += piece;
  }
}

// A node may have two names after a rename between directories of which only one was synced.
using Survivors = std::map<const Node*, std::shared_ptr<Node>>;

SparseBytes DataAfterCrash(const Node& file, const CrashPolicy& policy) {
  SparseBytes data = file.durable;
  for (const UnsyncedData& change : file.unsynced_data) {
    if (change.resize) {
      if (policy.keeps_change({file.path, change.sequence})) data.Resize(change.offset);
      continue;
    }
    const std::span<const std::byte> bytes(change.bytes);
    for (uint64_t done = 0; done < bytes.size();) {
      const uint64_t at = change.offset + done;
      const uint64_t length = std::min<uint64_t>(kSectorSize - at % kSectorSize, bytes.size() - done);
      if (policy.keeps_sector({file.path, change.sequence, at, length})) data.Write(at, bytes.subspan(done, length));
      done += length;
    }
  }
  return data;
}

std::shared_ptr<Node> Survivor(const Node& node, const CrashPolicy& policy, Survivors& survivors) {
  auto [found, is_new] = survivors.try_emplace(&node);
  if (!is_new) return found->second;
  auto survivor = found->second = std::make_shared<Node>();
  survivor->path = node.path;
  survivor->is_directory = node.is_directory;
  survivor->durable = survivor->live = DataAfterCrash(node, policy);

  auto entries = node.durable_entries;
  for (const UnsyncedEntry& change : node.unsynced_entries) {
    if (!policy.keeps_change({change.node->path, change.sequence})) continue;
    if (!change.removed.empty()) entries.erase(change.removed);
    if (!change.added.empty()) entries[change.added] = change.node;
  }
  for (const auto& [name, child] : entries) survivor->live_entries[name] = Survivor(*child, policy, survivors);
  survivor->durable_entries = survivor->live_entries;
  return survivor;
}

}  // namespace

size_t SparseBytes::Read(uint64_t offset, std::span<std::byte> to) const {
  if (offset >= size_) return 0;
  const uint64_t length = std::min<uint64_t>(to.size(), size_ - offset);
  ForEachChunk(offset, length, [&](uint64_t index, uint64_t within, uint64_t done, uint64_t piece) {
    const auto chunk = chunks_.find(index);
    if (chunk == chunks_.end()) {
      std::memset(to.data() + done, 0, piece);
    } else {
      std::memcpy(to.data() + done, chunk->second->data() + within, piece);
    }
  });
  return length;
}

std::byte* SparseBytes::Writable(uint64_t chunk_index) {
  std::shared_ptr<Chunk>& chunk = chunks_[chunk_index];
  if (chunk == nullptr) {
    chunk = std::make_shared<Chunk>();
    chunk->fill(std::byte{0});
  } else if (chunk.use_count() != 1) {
    chunk = std::make_shared<Chunk>(*chunk);
  }
  return chunk->data();
}

void SparseBytes::Write(uint64_t offset, std::span<const std::byte> from) {
  ForEachChunk(offset, from.size(), [&](uint64_t index, uint64_t within, uint64_t done, uint64_t piece) {
    std::memcpy(Writable(index) + within, from.data() + done, piece);
  });
  size_ = std::max<uint64_t>(size_, offset + from.size());
}

void SparseBytes::Resize(uint64_t size) {
  if (size < size_) {
    // Bytes behind the end must read as zeros should the file grow again.
    chunks_.erase(chunks_.lower_bound((size + kChunkSize - 1) / kChunkSize), chunks_.end());
    const uint64_t within = size % kChunkSize;
    if (within != 0 && chunks_.count(size / kChunkSize) != 0) {
      std::memset(Writable(size / kChunkSize) + within, 0, kChunkSize - within);
    }
  }
  size_ = size;
}

void SparseBytes::Share(const SparseBytes& other, uint64_t offset, uint64_t length) {
  ForEachChunk(offset, length, [&](uint64_t index, uint64_t, uint64_t, uint64_t) {
    const auto chunk = other.chunks_.find(index);
    if (chunk == other.chunks_.end()) {
      chunks_.erase(index);
    } else {
      chunks_[index] = chunk->second;
    }
  });
}

void Node::SyncData() {
  bool resized = false;
  for (const UnsyncedData& change : unsynced_data) {
    resized |= change.resize;
    if (!change.resize) durable.Share(live, change.offset, change.bytes.size());
  }
  // Sharing chunk by chunk costs what was written; a new size may have cut chunks off.
  if (resized || durable.size() != live.size()) durable = live;
  unsynced_data.clear();
}

void Node::SyncEntries() {
  durable_entries = live_entries;
  unsynced_entries.clear();
}

std::shared_ptr<Node> TreeAfterCrash(const Node& root, const CrashPolicy& policy) {
  Survivors survivors;
  return Survivor(root, policy, survivors);
}

uint64_t FileBytes(const Node& root) {
  uint64_t bytes = root.live.size();
  for (const auto& [name, child] : root.live_entries) bytes += FileBytes(*child);
  return bytes;
}

size_t UnsyncedCount(const Node& root) {
  size_t count = root.unsynced_data.size() + root.unsynced_entries.size();
  for (const auto& [name, child] : root.live_entries) count += UnsyncedCount(*child);
  return count;
}

}  // namespace tensorshelf::testing
