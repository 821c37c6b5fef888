// Changes: puts, and transactions of many changes with one commit.

#ifndef TENSORSHELF_PYTHON_BINDINGS_PUTS_H_
#define TENSORSHELF_PYTHON_BINDINGS_PUTS_H_

#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "python/bindings/handles.h"
#include "python/bindings/values.h"
#include "store/store.h"

namespace tensorshelf {

// What is said once for all values of a call.
struct PutSettings {
  Metadata metadata;
  Precondition precondition;
  uint8_t block_log2 = kBlockLog2;
  bool skip_unchanged = false;
  bool ephemeral = false;
  CacheHint cache = CacheHint::kNone;
  Priority priority = Priority::kForeground;
};

// Thread-safe: calls from several threads take turns.
class TransactionHandle {
 public:
  explicit TransactionHandle(std::shared_ptr<StoreHandle> store);

  void Put(const pybind11::list& names, const pybind11::list& values, const PutSettings& settings);
  // One of Transaction's name operations.
  void Change(const std::function<void(Transaction&)>& operation);
  // (commit, generations, names_changed, unchanged_count)
  pybind11::tuple Commit();
  // Forgets everything. Also when already committed.
  void Abort();

 private:
  Transaction& OpenTransaction() const;  // throws ClosedError after Commit or Abort

  std::shared_ptr<StoreHandle> store_;
  ForkSafe<Transaction> transaction_;
  std::mutex mutex_;  // taken without the interpreter lock
  // A put failed when a part of its values was in the transaction already: then nothing may be committed.
  bool is_broken_ = false;
};

Precondition PreconditionFrom(const std::string& kind, uint64_t generation);

// One commit of all values. (commit, generations, names_changed, unchanged_count)
pybind11::tuple PutValues(const std::shared_ptr<StoreHandle>& store, const pybind11::list& names,
                          const pybind11::list& values, const PutSettings& settings);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_PUTS_H_
