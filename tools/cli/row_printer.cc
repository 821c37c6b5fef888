#include "tools/cli/row_printer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "store/name.h"
#include "tools/cli/json_output.h"
#include "tools/cli/opening.h"
#include "tools/cli/text.h"
#include "tools/safetensors/header.h"

namespace tensorshelf::cli {
namespace {

// Names of letters, digits and the usual punctuation are as they are in text and in JSON.
bool IsPlain(const std::string& name) {
  return std::ranges::all_of(name, [](char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '\''; });
}

void AppendPadded(const std::string& text, size_t width, std::string* to) {
  to->append(text);
  if (text.size() < width) to->append(width - text.size(), ' ');
}
void AppendRight(const std::string& text, size_t width, std::string* to) {
  if (text.size() < width) to->append(width - text.size(), ' ');
  to->append(text);
}

void AppendName(const std::string& name, std::string* to) {
  to->append(IsPlain(name) ? name : EscapeForTerminal(name));
}

void AppendJsonName(const std::string& name, std::string* to) {
  if (IsPlain(name)) {
    absl::StrAppend(to, "\"", name, "\"");
  } else {
    to->append(DumpLine(Json(name)));  // of a damaged index it may not be UTF-8
  }
}

}  // namespace

TierNames::TierNames(const StoreInfo& info) {
  for (const FileInfo& file : info.files) by_file_[file.file_id] = file.tier;
}

const std::string& TierNames::Of(const ObjectRecord& record) const {
  if (record.placement == Placement::kInline) return index_;
  if (record.placement == Placement::kExternal) return external_;
  if (record.columns.empty() || record.columns[0].empty()) return none_;
  const auto file = by_file_.find(record.columns[0][0].file_id);
  return file == by_file_.end() ? none_ : file->second;
}

RowPrinter::RowPrinter(RowStyle style, const std::string& shelf, const StoreInfo& info, Console& console)
    : style_(style), shelf_(shelf), info_(info), console_(console), tiers_(info), now_ns_(absl::GetCurrentTimeNanos()) {
  if (style_ != RowStyle::kJson) return;
  // The envelope with its end cut off, so that rows can be streamed into it.
  std::string head = DumpLine(Envelope("ls", info_));
  head.pop_back();
  console_.out << head << ",\"names\":[";
}

void RowPrinter::Put(const std::string& row) {
  if (style_ == RowStyle::kJson) {
    console_.out << (count_ == 0 ? "\n" : ",\n") << row;
  } else {
    console_.out << row << '\n';
  }
  ++count_;
}

void RowPrinter::Print(const std::string& name) {
  row_.clear();
  AppendName(name, &row_);
  Put(row_);
}

void RowPrinter::Print(const std::string& name, const ObjectRecord& record) {
  bytes_ += record.logical_bytes;
  row_.clear();
  if (style_ == RowStyle::kNames) {
    AppendName(name, &row_);
  } else if (style_ == RowStyle::kLong) {
    AppendLong(name, record);
  } else {
    AppendJson(name, record);
  }
  Put(row_);
}

void RowPrinter::AppendLong(const std::string& name, const ObjectRecord& record) {
  AppendPadded(FormatDtype(record), 16, &row_);
  row_.push_back(' ');
  AppendPadded(record.kind == ObjectKind::kBytes ? "" : FormatShape(record.shape), 20, &row_);
  row_.push_back(' ');
  AppendRight(FormatBytes(record.logical_bytes), 10, &row_);
  row_.push_back(' ');
  AppendPadded(tiers_.Of(record), 6, &row_);
  row_.push_back(' ');
  SetTime(record.created_ns);
  AppendRight(age_text_, 7, &row_);
  row_.append("  ");
  if (console_.colour) {
    row_.append(Painted(console_, Colour::kBold, EscapeForTerminal(name)));
  } else {
    AppendName(name, &row_);
  }
}

// As DumpLine(ObjectJson(...)) with the tier behind it, which would take ten times as long.
void RowPrinter::AppendJson(const std::string& name, const ObjectRecord& record) {
  const bool is_bytes = record.kind == ObjectKind::kBytes;
  SetTime(record.created_ns);
  row_.append("{\"name\":");
  AppendJsonName(name, &row_);
  absl::StrAppend(&row_, ",\"kind\":", is_bytes ? "\"bytes\"" : "\"tensor\"", ",\"dtype\":");
  if (is_bytes) {
    row_.append("null,\"shape\":null");
  } else {
    AppendJsonName(FormatDtype(record), &row_);
    row_.append(",\"shape\":[");
    for (size_t i = 0; i < record.shape.size(); ++i) absl::StrAppend(&row_, i == 0 ? "" : ",", record.shape[i]);
    row_.push_back(']');
  }
  absl::StrAppend(&row_, ",\"size\":", record.logical_bytes, ",\"created\":\"", time_text_,
                  "\",\"generation\":", record.generation, ",\"placement\":\"", PlacementText(record.placement),
                  "\",\"tier\":");
  AppendJsonName(tiers_.Of(record), &row_);
  row_.push_back('}');
}

void RowPrinter::SetTime(int64_t ns_since_epoch) {
  const int64_t second = ns_since_epoch / 1'000'000'000;
  if (second == time_second_ && ns_since_epoch >= 0) return;
  time_second_ = second;
  time_text_ = FormatTime(ns_since_epoch);
  age_text_ = FormatDuration(static_cast<double>(now_ns_ - ns_since_epoch) / 1e9);
}

void RowPrinter::PrintDamaged(const std::string& name, const absl::Status& status) {
  ++damaged_;
  const std::string message(status.message());
  if (style_ == RowStyle::kJson) {
    Put(DumpLine(
        {{"name", name}, {"error", {{"code", absl::StatusCodeToString(status.code())}, {"message", message}}}}));
  } else if (style_ == RowStyle::kLong) {
    Put(absl::StrCat(Painted(console_, Colour::kRed, "damaged"), "          ", EscapeForTerminal(name), ": ",
                     PrintableMessage(message)));
  } else {
    Put(EscapeForTerminal(name));
  }
}

void RowPrinter::Finish(const absl::Status& status) {
  const auto damaged = [&] { return damaged_ == 0 ? "" : absl::StrCat(", ", FormatCount(damaged_, "damaged record")); };
  if (style_ == RowStyle::kJson) {
    console_.out << (count_ == 0 ? "],\"count\":" : "\n],\"count\":") << count_ << ",\"size\":" << bytes_
                 << ",\"damaged\":" << damaged_;
    if (!status.ok()) console_.out << ",\"error\":" << DumpLine(ErrorJson("ls", shelf_, status)["error"]);
    console_.out << "}\n";
  } else if (!status.ok()) {
    return;
  } else if (style_ == RowStyle::kLong) {
    console_.out << FormatCount(count_, "name") << ", " << FormatBytes(bytes_) << damaged() << ", "
                 << StandingText(info_) << "\n";
  } else {
    console_.err << FormatCount(count_, "name") << damaged() << ", " << StandingText(info_) << "\n";
  }
}

}  // namespace tensorshelf::cli
