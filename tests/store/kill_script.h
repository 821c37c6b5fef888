// What kill_point_writer does to a shelf, step by step, and what the shelf must hold after each step: the writer runs
// it, kill_point_test judges where it was killed.

#ifndef TENSORSHELF_TESTS_STORE_KILL_SCRIPT_H_
#define TENSORSHELF_TESTS_STORE_KILL_SCRIPT_H_

#include <optional>
#include <string>
#include <vector>

#include "tests/store/store_model.h"

namespace tensorshelf {

// A step without an operation is one of the shelf as a whole, named by its phase: "create", "open", "grow", "close",
// "damage" (of one copy of a label), "repair" (tensorshelf fsck --repair).
struct KillStep {
  std::string phase;
  std::optional<ModelOp> op = std::nullopt;
};

inline std::vector<KillStep> KillScript() {
  using Kind = ModelOp::Kind;
  const auto put = [](const std::string& name, uint64_t size, uint64_t seed) {
    return ModelOp{.kind = Kind::kPut, .name = name, .value = {.size = size, .seed = seed}};
  };
  return {
      {"create"},
      {"open"},
      {"put", put("a/small", 5000, 1)},
      {"put", put("a/trailer", 150000, 2)},
      {"put", put("b", 700000, 3)},
      {"put-inline", put("c", 90, 4)},
      {"replace", put("a/small", 9000, 5)},
      {"transaction", ModelOp{.kind = Kind::kTransaction,
                              .parts = {put("d", 70000, 6), {.kind = Kind::kDelete, .name = "c"}, put("e", 20, 7)}}},
      {"rename", ModelOp{.kind = Kind::kRename, .name = "e", .to = "f"}},
      {"clone", ModelOp{.kind = Kind::kClonePrefix, .name = "a/", .to = "step/"}},
      {"delete", ModelOp{.kind = Kind::kDelete, .name = "a/trailer"}},
      {"flush", ModelOp{.kind = Kind::kFlush}},
      {"move", ModelOp{.kind = Kind::kMove, .name = "b"}},
      {"free", ModelOp{.kind = Kind::kDelete, .name = "step/trailer"}},
      {"compact", ModelOp{.kind = Kind::kCompact}},
      {"grow"},
      {"put", put("g", 300000, 8)},
      {"close"},
      {"damage"},
      {"repair"},
      {"open"},
      {"put", put("last", 40000, 9)},
      {"close"},
  };
}

}  // namespace tensorshelf

#endif  // TENSORSHELF_TESTS_STORE_KILL_SCRIPT_H_
