// What a store must hold, as a map in memory, and random operations that change both. An operation is a value: it can
// be printed, applied to the model, applied to a store, and left out when a failing sequence is made shorter.

#ifndef TENSORSHELF_TESTS_STORE_STORE_MODEL_H_
#define TENSORSHELF_TESTS_STORE_STORE_MODEL_H_

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/store.h"

namespace tensorshelf {

struct ModelValue {
  uint64_t size = 0;  // bytes
  uint64_t seed = 0;  // of RandomBytes
  bool ephemeral = false;

  std::string bytes() const;
  friend bool operator==(const ModelValue&, const ModelValue&) = default;
};
using Model = std::map<std::string, ModelValue>;

struct ModelOp {
  enum class Kind {
    kPut,
    kPutUnchanged,  // skip_unchanged
    kPutEphemeral,
    kDelete,
    kRename,
    kClone,
    kDeletePrefix,
    kRenamePrefix,
    kClonePrefix,
    kTransaction,  // `parts`, in order
    kPutMany,      // `parts`, all kPut
    kFlush,
    kMove,  // of one name, to another place
    kCompact,
    kReopen,
  };
  Kind kind = Kind::kPut;
  std::string name = "";
  std::string to = "";
  bool flag = false;  // replace, or missing_ok
  ModelValue value = {};
  std::vector<ModelOp> parts = {};
};

std::string Describe(const ModelOp& op);

// The status code that the store must answer; `model` changes only when that is kOk.
absl::StatusCode Apply(Model& model, const ModelOp& op);
// Everything but kReopen.
absl::Status Apply(Store& store, const ModelOp& op);
// What an open finds: no ephemeral names.
Model Durable(const Model& model);

struct ModelChoices {
  std::vector<std::string> names;
  std::vector<std::string> prefixes;
  uint64_t size_max = 300000;  // bytes of one value
  bool ephemeral = false;
  bool reopen = false;
};
ModelOp RandomOp(std::mt19937_64& random, const ModelChoices& choices);

// Empty when `store` holds exactly `model`, every byte compared; else what differs.
std::string Difference(Store& store, const Model& model);
// Empty when the seven states of space add up and nothing is reserved, in limbo or bad.
std::string SpaceProblem(Store& store);

}  // namespace tensorshelf

#endif  // TENSORSHELF_TESTS_STORE_STORE_MODEL_H_
