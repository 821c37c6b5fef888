// tensorshelf diff: two prefixes of a shelf, or of two shelves, compared by fingerprints. No tensor is read.

#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/name.h"
#include "store/store.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct DiffArguments : CommonOptions {
  std::string a, b;
  std::string other;
  bool same = false;
  bool exit_code = false;
};

// The names under one prefix, in order, without it. Confined to one thread.
class Side {
 public:
  static absl::StatusOr<Side> Create(Store& store, const std::string& prefix) {
    Side side;
    side.prefix_bytes_ = prefix.size();
    TS_ASSIGN_OR_RETURN(side.cursor_, store.NewCursor(prefix, ""));
    TS_RETURN_IF_ERROR(side.Next());
    return side;
  }

  absl::Status Next() {
    TS_ASSIGN_OR_RETURN(there_, cursor_->Next());
    if (there_) name_ = cursor_->name().substr(prefix_bytes_);
    return absl::OkStatus();
  }
  bool there() const { return there_; }
  const std::string& name() const { return name_; }
  const absl::Status& status() const { return cursor_->status(); }
  const ObjectRecord& record() const { return cursor_->record(); }

 private:
  std::unique_ptr<ObjectCursor> cursor_;
  size_t prefix_bytes_ = 0;
  bool there_ = false;
  std::string name_;
};

enum class Change { kSame, kAdded, kRemoved, kChanged, kUnknown, kDamaged };
const char* ChangeText(Change change) {
  static constexpr const char* kTexts[] = {"same", "added", "removed", "changed", "unknown", "damaged"};
  return kTexts[static_cast<size_t>(change)];
}

// What differs besides the bytes; empty: nothing.
std::string DescribeTypes(const ObjectRecord& a, const ObjectRecord& b) {
  if (a.kind == b.kind && a.dtype == b.dtype && a.shape == b.shape && a.logical_bytes == b.logical_bytes) return "";
  const auto text = [](const ObjectRecord& record) {
    const std::string shape = record.kind == ObjectKind::kBytes ? "" : FormatShape(record.shape);
    return absl::StrCat(FormatDtype(record), shape.empty() ? "" : " ", shape, " ", FormatBytes(record.logical_bytes));
  };
  return absl::StrCat(text(a), " -> ", text(b));
}

struct Difference {
  Change change = Change::kSame;
  std::string detail;
};

Difference Compare(const Side& a, const Side& b) {
  for (const Side* side : {&a, &b}) {
    if (!side->status().ok()) return {Change::kDamaged, std::string(side->status().message())};
  }
  if (std::string types = DescribeTypes(a.record(), b.record()); !types.empty()) return {Change::kChanged, types};
  if (a.record().fingerprint == b.record().fingerprint) return {Change::kSame, ""};
  // A fingerprint is made of block sums: those of unequal blocks say nothing about each other.
  if (a.record().block_log2 != b.record().block_log2) {
    return {Change::kUnknown, "their checksum blocks differ in size, so fingerprints cannot tell"};
  }
  return {Change::kChanged, "other bytes"};
}

class DiffRun {
 public:
  DiffRun(const DiffArguments& arguments, Console& console) : arguments_(arguments), console_(console) {}

  absl::Status Run(Side& a, Side& b) {
    while (a.there() || b.there()) {
      const bool only_a = a.there() && (!b.there() || a.name() < b.name());
      const bool only_b = b.there() && (!a.there() || b.name() < a.name());
      if (only_a) {
        Report(a.name(), {Change::kRemoved, ""}, &a);
      } else if (only_b) {
        Report(b.name(), {Change::kAdded, ""}, &b);
      } else {
        Report(a.name(), Compare(a, b), nullptr);
      }
      if (!only_b) TS_RETURN_IF_ERROR(a.Next());
      if (!only_a) TS_RETURN_IF_ERROR(b.Next());
    }
    return absl::OkStatus();
  }

  uint64_t count(Change change) const { return counts_[static_cast<size_t>(change)]; }
  Json TakeList() { return std::move(list_); }

 private:
  void Report(const std::string& name, const Difference& difference, const Side* only) {
    ++counts_[static_cast<size_t>(difference.change)];
    if (difference.change == Change::kSame && !arguments_.same) return;
    std::string detail = difference.detail;
    if (only != nullptr && only->status().ok()) {
      detail = absl::StrCat(FormatDtype(only->record()), " ", FormatBytes(only->record().logical_bytes));
    }
    if (arguments_.json) {
      list_.push_back({{"name", name}, {"change", ChangeText(difference.change)}, {"detail", detail}});
      return;
    }
    static constexpr const char* kMarks[] = {"=", "+", "-", "~", "?", "!"};
    static constexpr Colour kColours[] = {Colour::kDim,    Colour::kGreen,  Colour::kRed,
                                          Colour::kYellow, Colour::kYellow, Colour::kRed};
    const auto index = static_cast<size_t>(difference.change);
    console_.out << Painted(console_, kColours[index], absl::StrCat(kMarks[index], " ", EscapeForTerminal(name)));
    if (!detail.empty()) console_.out << "  " << PrintableMessage(detail);
    console_.out << "\n";
  }

  const DiffArguments& arguments_;
  Console& console_;
  uint64_t counts_[6] = {};
  Json list_ = Json::array();
};

ExitStatus StatusOf(const DiffRun& run, bool exit_code) {
  if (run.count(Change::kDamaged) > 0) return ExitStatus::kDamage;
  const bool differs = run.count(Change::kAdded) + run.count(Change::kRemoved) + run.count(Change::kChanged) +
                           run.count(Change::kUnknown) >
                       0;
  return exit_code && differs ? static_cast<ExitStatus>(1) : ExitStatus::kClean;
}

absl::StatusOr<ExitStatus> RunDiff(const DiffArguments& arguments, Console& console) {
  const bool two_shelves = !arguments.other.empty();
  if (!two_shelves && arguments.b.empty()) return UsageError("diff needs two prefixes A and B, or --other SHELF");
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForLooking(arguments.shelf, console));
  std::unique_ptr<Store> other;
  if (two_shelves) {
    TS_ASSIGN_OR_RETURN(other, OpenForLooking(arguments.other, console));
  }
  Store& second = two_shelves ? *other : *store;
  DiffRun run(arguments, console);
  {
    TS_ASSIGN_OR_RETURN(Side a, Side::Create(*store, arguments.a));
    TS_ASSIGN_OR_RETURN(Side b, Side::Create(second, two_shelves && arguments.b.empty() ? arguments.a : arguments.b));
    TS_RETURN_IF_ERROR(run.Run(a, b));
  }
  const StoreInfo info = store->info();
  if (arguments.json) {
    Json json = Envelope("diff", info);
    json["other"] = two_shelves ? Envelope("diff", other->info()) : Json(nullptr);
    for (const Change change :
         {Change::kAdded, Change::kRemoved, Change::kChanged, Change::kUnknown, Change::kDamaged, Change::kSame}) {
      json[absl::StrCat(ChangeText(change), "_count")] = run.count(change);
    }
    json["differences"] = run.TakeList();
    console.out << Dump(json);
  } else {
    console.out << run.count(Change::kAdded) << " added, " << run.count(Change::kRemoved) << " removed, "
                << run.count(Change::kChanged) << " changed, " << run.count(Change::kSame) << " the same";
    if (run.count(Change::kUnknown) > 0) console.out << ", " << run.count(Change::kUnknown) << " unknown";
    if (run.count(Change::kDamaged) > 0) console.out << ", " << run.count(Change::kDamaged) << " damaged";
    console.out << ", " << StandingText(info);
    if (two_shelves) console.out << "; the other " << StandingText(other->info());
    console.out << "\n";
  }
  return StatusOf(run, arguments.exit_code);
}

}  // namespace

Verb AddDiff(CLI::App& app) {
  auto arguments = std::make_shared<DiffArguments>();
  CommandLine line(app, "diff",
                   "Compare the names under prefix A with those under prefix B, without the prefixes: what is added, "
                   "removed, changed. By fingerprints: reads no tensor.",
                   arguments.get());
  line.Text("A", &arguments->a, "a prefix of SHELF; with --other it may be left out: everything");
  line.Text("B", &arguments->b, "a prefix of SHELF, or with --other of that shelf (A when left out)");
  line.Text("--other", &arguments->other, "compare with this shelf");
  line.Flag("--same", &arguments->same, "list what is the same, too");
  line.Flag("--exit-code", &arguments->exit_code, "exit status 1 when there are differences");
  return {line.command(), arguments, [arguments](Console& console) { return RunDiff(*arguments, console); }};
}

}  // namespace tensorshelf::cli
