// What Python objects hold of the store: the store itself, a found object, a view, a transaction. Each keeps the store
// alive, lets go without the interpreter lock, and leaves everything alone in a forked child.

#ifndef TENSORSHELF_PYTHON_BINDINGS_HANDLES_H_
#define TENSORSHELF_PYTHON_BINDINGS_HANDLES_H_

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/foundation/process_id.h"
#include "python/bindings/notices.h"
#include "store/store.h"

namespace tensorshelf {

// Owns a T that is destroyed without the interpreter lock, and not at all in a forked child, where locks may be held by
// threads that the child does not have.
template <typename T>
class ForkSafe {
 public:
  ForkSafe() = default;
  explicit ForkSafe(std::unique_ptr<T> value) : value_(std::move(value)) {}
  ForkSafe(ForkSafe&&) noexcept = default;
  ForkSafe& operator=(ForkSafe&& other) noexcept {
    Reset();
    owner_ = other.owner_;
    value_ = std::move(other.value_);
    return *this;
  }
  ~ForkSafe() { Reset(); }

  T* get() const { return value_.get(); }
  T* operator->() const { return value_.get(); }
  T& operator*() const { return *value_; }
  bool forked() const { return ProcessId() != owner_; }

  void Reset() {
    if (value_ == nullptr) return;
    if (forked()) {
      static_cast<void>(value_.release());
    } else if (PyGILState_Check()) {
      pybind11::gil_scoped_release unlocked;
      value_.reset();
    } else {
      value_.reset();
    }
  }

 private:
  pid_t owner_ = ProcessId();
  std::unique_ptr<T> value_;
};

// An open store. Thread-safe as Store is.
class StoreHandle {
 public:
  StoreHandle(std::unique_ptr<Store> store, std::shared_ptr<Notices> notices)
      : notices_(std::move(notices)), store_(std::move(store)) {}

  // Throws ForkedError in a child of the process that opened it. After Close the store answers for itself.
  Store& store() const;
  Notices& notices() const { return *notices_; }
  bool forked() const { return store_.forked(); }

 private:
  std::shared_ptr<Notices> notices_;
  ForkSafe<Store> store_;
};

// Members in this order: what is destroyed first stands last.
struct ObjectHandle {
  std::shared_ptr<StoreHandle> store;
  ForkSafe<Object> object;
};

struct ViewHandle {
  std::shared_ptr<StoreHandle> store;
  ForkSafe<View> view;

  // Throws ClosedError after close().
  const View* get() const;
};

// Opens with the options of a Python dictionary (python/tensorshelf/_core.pyi has its keys).
std::shared_ptr<StoreHandle> OpenStore(const std::string& path, const pybind11::dict& options);
void CreateStore(const std::string& path, const pybind11::dict& options);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_HANDLES_H_
