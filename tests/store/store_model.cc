#include "tests/store/store_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/compact.h"
#include "store/move.h"
#include "tests/store/store_fixture.h"

namespace tensorshelf {
namespace {

using Kind = ModelOp::Kind;

const char* NameOf(Kind kind) {
  constexpr const char* kNames[] = {"put",      "put-unchanged", "put-ephemeral", "delete",       "rename",
                                    "clone",    "delete-prefix", "rename-prefix", "clone-prefix", "transaction",
                                    "put-many", "flush",         "move",          "compact",      "reopen"};
  return kNames[static_cast<size_t>(kind)];
}

bool HasPrefix(const std::string& name, const std::string& prefix) {
  return name.compare(0, prefix.size(), prefix) == 0;
}

absl::StatusCode Point(Model& model, const std::string& name, const ModelValue& value, bool replace) {
  if (!replace && model.contains(name)) return absl::StatusCode::kAlreadyExists;
  model[name] = value;
  return absl::StatusCode::kOk;
}

absl::StatusCode Move(Model& model, const ModelOp& op) {
  const auto from = model.find(op.name);
  if (from == model.end()) return absl::StatusCode::kNotFound;
  if (from->second.ephemeral) return absl::StatusCode::kInvalidArgument;
  if (op.name == op.to) return absl::StatusCode::kOk;
  const absl::StatusCode code = Point(model, op.to, from->second, op.flag);
  if (code == absl::StatusCode::kOk && op.kind == Kind::kRename) model.erase(op.name);
  return code;
}

absl::StatusCode MovePrefix(Model& model, const ModelOp& op) {
  std::vector<std::pair<std::string, ModelValue>> names;
  for (const auto& [name, value] : model) {
    if (HasPrefix(name, op.name) && !value.ephemeral) names.emplace_back(name, value);
  }
  if (op.name == op.to) return absl::StatusCode::kOk;
  if (op.kind == Kind::kRenamePrefix) {
    for (const auto& [name, value] : names) model.erase(name);
  }
  for (const auto& [name, value] : names) {
    const absl::StatusCode code = Point(model, op.to + name.substr(op.name.size()), value, op.flag);
    if (code != absl::StatusCode::kOk) return code;
  }
  return absl::StatusCode::kOk;
}

absl::StatusCode ApplyInPlace(Model& model, const ModelOp& op) {
  switch (op.kind) {
    case Kind::kPut:
    case Kind::kPutUnchanged:
      model[op.name] = op.value;
      return absl::StatusCode::kOk;
    case Kind::kPutEphemeral:
      if (const auto old = model.find(op.name); old != model.end() && !old->second.ephemeral) {
        return absl::StatusCode::kAlreadyExists;
      }
      model[op.name] = op.value;
      return absl::StatusCode::kOk;
    case Kind::kDelete:
      return model.erase(op.name) > 0 || op.flag ? absl::StatusCode::kOk : absl::StatusCode::kNotFound;
    case Kind::kRename:
    case Kind::kClone:
      return Move(model, op);
    case Kind::kDeletePrefix:
      std::erase_if(model, [&](const auto& entry) { return HasPrefix(entry.first, op.name); });
      return absl::StatusCode::kOk;
    case Kind::kRenamePrefix:
    case Kind::kClonePrefix:
      return MovePrefix(model, op);
    case Kind::kTransaction:
    case Kind::kPutMany:
      for (const ModelOp& part : op.parts) {
        const absl::StatusCode code = ApplyInPlace(model, part);
        if (code != absl::StatusCode::kOk) return code;
      }
      return absl::StatusCode::kOk;
    case Kind::kFlush:
    case Kind::kCompact:
      return absl::StatusCode::kOk;
    case Kind::kMove:
      return model.contains(op.name) ? absl::StatusCode::kOk : absl::StatusCode::kNotFound;
    case Kind::kReopen:
      model = Durable(model);
      return absl::StatusCode::kOk;
  }
  return absl::StatusCode::kInternal;
}

// Also OK: there was no room, or nothing to be moved.
absl::Status MoveIn(Store& store, const std::string& name) {
  const MoveRequest request{.name = name};
  TS_ASSIGN_OR_RETURN(const std::vector<MoveResult> results, store.Move({&request, 1}));
  const MoveFate fate = results[0].fate;
  if (fate == MoveFate::kDamaged) return results[0].why;
  return fate == MoveFate::kLost ? absl::InternalError("lost, and nobody was there to win") : absl::OkStatus();
}

absl::Status CompactAll(Store& store) {
  TS_ASSIGN_OR_RETURN(const CompactReport report, store.Compact({}));
  return report.objects_damaged + report.objects_lost == 0 ? absl::OkStatus() : absl::DataLossError("damage or loss");
}

PutItem ItemOf(const ModelOp& op, const std::string& bytes) {
  PutItem item = BytesItem(op.name, bytes);
  item.skip_unchanged = op.kind == Kind::kPutUnchanged;
  item.ephemeral = op.kind == Kind::kPutEphemeral;
  return item;
}

absl::Status AddTo(Transaction& transaction, const ModelOp& op) {
  switch (op.kind) {
    case Kind::kDelete:
      transaction.Delete(op.name, op.flag);
      return absl::OkStatus();
    case Kind::kRename:
      transaction.Rename(op.name, op.to, op.flag);
      return absl::OkStatus();
    case Kind::kClone:
      transaction.Clone(op.name, op.to, op.flag);
      return absl::OkStatus();
    case Kind::kDeletePrefix:
      transaction.DeletePrefix(op.name);
      return absl::OkStatus();
    case Kind::kRenamePrefix:
      transaction.RenamePrefix(op.name, op.to, op.flag);
      return absl::OkStatus();
    case Kind::kClonePrefix:
      transaction.ClonePrefix(op.name, op.to, op.flag);
      return absl::OkStatus();
    default: {
      const std::string bytes = op.value.bytes();
      const PutItem item = ItemOf(op, bytes);
      return transaction.Put({&item, 1});
    }
  }
}

}  // namespace

std::string ModelValue::bytes() const { return RandomBytes(size, seed); }

std::string Describe(const ModelOp& op) {
  std::string text = absl::StrCat(NameOf(op.kind), "(", op.name);
  if (!op.to.empty()) absl::StrAppend(&text, " -> ", op.to);
  if (op.flag) absl::StrAppend(&text, ", flag");
  if (op.parts.empty() && op.kind <= Kind::kPutEphemeral) {
    absl::StrAppend(&text, ", ", op.value.size, " bytes of seed ", op.value.seed);
  }
  for (const ModelOp& part : op.parts) absl::StrAppend(&text, " ", Describe(part));
  return text + ")";
}

absl::StatusCode Apply(Model& model, const ModelOp& op) {
  Model changed = model;
  const absl::StatusCode code = ApplyInPlace(changed, op);
  if (code == absl::StatusCode::kOk) model = std::move(changed);
  return code;
}

absl::Status Apply(Store& store, const ModelOp& op) {
  if (op.kind == Kind::kFlush) return store.Flush();
  if (op.kind == Kind::kMove) return MoveIn(store, op.name);
  if (op.kind == Kind::kCompact) return CompactAll(store);
  if (op.kind == Kind::kPutMany) {
    std::vector<std::string> bytes;
    for (const ModelOp& part : op.parts) bytes.push_back(part.value.bytes());
    std::vector<PutItem> items;
    for (size_t i = 0; i < op.parts.size(); ++i) items.push_back(ItemOf(op.parts[i], bytes[i]));
    return store.Put(items).status();
  }
  if (op.kind <= Kind::kPutEphemeral) {
    const std::string bytes = op.value.bytes();
    return store.Put(ItemOf(op, bytes)).status();
  }
  TS_ASSIGN_OR_RETURN(Transaction transaction, store.Begin());
  if (op.kind == Kind::kTransaction) {
    for (const ModelOp& part : op.parts) TS_RETURN_IF_ERROR(AddTo(transaction, part));
  } else {
    TS_RETURN_IF_ERROR(AddTo(transaction, op));
  }
  return transaction.Commit().status();
}

Model Durable(const Model& model) {
  Model durable = model;
  std::erase_if(durable, [](const auto& entry) { return entry.second.ephemeral; });
  return durable;
}

ModelOp RandomOp(std::mt19937_64& random, const ModelChoices& choices) {
  const auto any = [&](const std::vector<std::string>& of) { return of[random() % of.size()]; };
  const auto value = [&](bool ephemeral) {
    // Inline, small, with a trailer, and any.
    const uint64_t limits[] = {100, 5000, 80000, choices.size_max};
    // Few seeds, so that equal content comes again.
    return ModelValue{.size = random() % std::min(limits[random() % 4], choices.size_max),
                      .seed = random() % 3,
                      .ephemeral = ephemeral};
  };
  const auto simple = [&]() -> ModelOp {
    ModelOp op{.name = any(choices.names), .to = any(choices.names), .flag = random() % 2 == 0};
    switch (random() % 16) {
      default:
        return {.kind = Kind::kPut, .name = op.name, .value = value(false)};
      case 0:
        return {.kind = Kind::kPutUnchanged, .name = op.name, .value = {.size = 2000 * (random() % 3), .seed = 1}};
      case 1:
        if (!choices.ephemeral) return {.kind = Kind::kPut, .name = op.name, .value = value(false)};
        return {.kind = Kind::kPutEphemeral, .name = op.name, .value = value(true)};
      case 2:
      case 3:
        return {.kind = Kind::kDelete, .name = op.name, .flag = op.flag};
      case 4:
      case 5:
        op.kind = Kind::kRename;
        return op;
      case 6:
      case 7:
        op.kind = Kind::kClone;
        return op;
      case 8:
        // Not every time: an empty store has few bugs.
        if (random() % 4 != 0) return {.kind = Kind::kDelete, .name = op.name, .flag = op.flag};
        return {.kind = Kind::kDeletePrefix, .name = any(choices.prefixes)};
      case 9:
        return {
            .kind = Kind::kRenamePrefix, .name = any(choices.prefixes), .to = any(choices.prefixes), .flag = op.flag};
      case 10:
        return {
            .kind = Kind::kClonePrefix, .name = any(choices.prefixes), .to = any(choices.prefixes), .flag = op.flag};
    }
  };
  switch (random() % 12) {
    case 0: {
      ModelOp op{.kind = Kind::kTransaction};
      const size_t count = 1 + random() % 5;
      for (size_t i = 0; i < count; ++i) op.parts.push_back(simple());
      return op;
    }
    case 1: {
      ModelOp op{.kind = Kind::kPutMany};
      const size_t count = 1 + random() % 6;
      for (size_t i = 0; i < count; ++i) {
        op.parts.push_back({.kind = Kind::kPut, .name = any(choices.names), .value = value(false)});
      }
      return op;
    }
    case 2:
      if (random() % 4 == 0 && choices.reopen) return {.kind = Kind::kReopen};
      if (random() % 4 == 0) return {.kind = Kind::kFlush};
      return simple();
    case 3:
      if (random() % 4 == 0) return {.kind = Kind::kCompact};
      return {.kind = Kind::kMove, .name = any(choices.names)};
    default:
      return simple();
  }
}

std::string Difference(Store& store, const Model& model) {
  std::vector<std::string> names;
  const absl::Status scanned = store.Scan("", "", [&](const std::string& name, uint64_t) {
    names.push_back(name);
    return true;
  });
  if (!scanned.ok()) return absl::StrCat("scan: ", scanned.ToString());
  auto expected = model.begin();
  for (const std::string& name : names) {
    if (expected == model.end() || name < expected->first) return absl::StrCat("unexpected name ", name);
    if (expected->first < name) break;
    ++expected;
  }
  if (expected != model.end()) return absl::StrCat("missing name ", expected->first);
  for (const auto& [name, value] : model) {
    auto object = store.Find(name);
    if (!object.ok()) return absl::StrCat(name, ": ", object.status().ToString());
    const std::string wanted = value.bytes();
    if (object->size_bytes() != wanted.size()) {
      return absl::StrCat(name, ": ", object->size_bytes(), " bytes, not ", wanted.size());
    }
    std::string bytes(wanted.size(), '\0');
    const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
    const absl::Status read = store.Read({&request, 1}, {});
    if (!read.ok()) return absl::StrCat(name, ": ", read.ToString());
    if (bytes != wanted) return absl::StrCat(name, ": other bytes");
  }
  const uint64_t counted = store.stats().names;
  if (counted != UINT64_MAX && counted != model.size())
    return absl::StrCat("stats say ", counted, " names, there are ", model.size());
  return "";
}

std::string SpaceProblem(Store& store) {
  const SpaceBytes space = store.stats().space;
  const uint64_t sum =
      space.reserved + space.live + space.parked + space.free + space.scratch + space.limbo + space.bad;
  if (sum != space.capacity) return absl::StrCat("states add up to ", sum, " of ", space.capacity);
  const uint64_t unexpected = space.reserved + space.parked + space.limbo + space.bad;
  if (unexpected != 0) {
    return absl::StrCat("reserved ", space.reserved, ", parked ", space.parked, ", limbo ", space.limbo, ", bad ",
                        space.bad);
  }
  return "";
}

}  // namespace tensorshelf
