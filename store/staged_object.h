// An object whose bytes are written and whose commit has not come yet.

#ifndef TENSORSHELF_STORE_STAGED_OBJECT_H_
#define TENSORSHELF_STORE_STAGED_OBJECT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "index/record.h"
#include "store/extent_allocator.h"
#include "store/store.h"

namespace tensorshelf {

// Space that somebody reserved and that goes back to free unless it is taken. Movable; thread-compatible. The allocator
// must outlive it. No transfer into the space may be in flight when it is given back.
class ReservedSpace {
 public:
  ReservedSpace() = default;
  ReservedSpace(ExtentAllocator* allocator, std::vector<Extent> extents)
      : allocator_(allocator), extents_(std::move(extents)) {}
  ReservedSpace(ReservedSpace&& other) noexcept
      : allocator_(other.allocator_), extents_(std::exchange(other.extents_, {})) {}
  ReservedSpace& operator=(ReservedSpace&& other) noexcept {
    if (this != &other) {
      GiveBack();
      allocator_ = other.allocator_;
      extents_ = std::exchange(other.extents_, {});
    }
    return *this;
  }
  ~ReservedSpace() { GiveBack(); }

  const std::vector<Extent>& extents() const { return extents_; }
  // Reserved becomes `state`, and this owns nothing any more.
  void BecomeState(SpaceState state) {
    if (!extents_.empty()) allocator_->Move(std::exchange(extents_, {}), SpaceState::kReserved, state);
  }
  void Add(std::vector<Extent> more) { extents_.insert(extents_.end(), more.begin(), more.end()); }
  // Takes the extents out; the caller answers for them, still reserved.
  std::vector<Extent> Take() { return std::exchange(extents_, {}); }

 private:
  void GiveBack() { BecomeState(SpaceState::kFree); }

  ExtentAllocator* allocator_ = nullptr;
  std::vector<Extent> extents_;
};

struct StagedObject {
  std::string name;
  Precondition precondition;
  std::shared_ptr<const ObjectRecord> record;
  std::vector<uint64_t> sums;                  // all of them when the record does not hold them
  std::shared_ptr<const std::string> payload;  // inline objects
  ReservedSpace space;
  bool ephemeral = false;
  // skip_unchanged found the same content under the name: `unchanged` is the object there, leased, and nothing was
  // written.
  bool is_unchanged = false;
  Object unchanged;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_STAGED_OBJECT_H_
