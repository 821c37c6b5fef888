// Rows of a listing, printed one by one as they come: names alone, a table, or JSON. Made for millions of rows.

#ifndef TENSORSHELF_TOOLS_CLI_ROW_PRINTER_H_
#define TENSORSHELF_TOOLS_CLI_ROW_PRINTER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "store/store.h"
#include "tools/cli/console.h"

namespace tensorshelf::cli {

enum class RowStyle { kNames, kLong, kJson };

// Which tier an object is in: that of its first extent's file, "index" for inline ones, "" for those without bytes.
class TierNames {
 public:
  explicit TierNames(const StoreInfo& info);
  const std::string& Of(const ObjectRecord& record) const;

 private:
  std::map<uint32_t, std::string> by_file_;
  const std::string index_ = "index", external_ = "external", none_;
};

// Confined to one thread.
class RowPrinter {
 public:
  // `shelf` as the user named it, for errors. Both references must outlive this.
  RowPrinter(RowStyle style, const std::string& shelf, const StoreInfo& info, Console& console);

  void Print(const std::string& name);  // kNames
  void Print(const std::string& name, const ObjectRecord& record);
  // A name whose record cannot be read.
  void PrintDamaged(const std::string& name, const absl::Status& status);
  // Ends the listing: JSON is closed, with `status` in it; else what the rows add up to, unless `status` is an error.
  void Finish(const absl::Status& status);

  uint64_t damaged() const { return damaged_; }

 private:
  void Put(const std::string& row);
  void AppendLong(const std::string& name, const ObjectRecord& record);
  void AppendJson(const std::string& name, const ObjectRecord& record);
  // Texts of the last row's time: objects of one commit share them.
  void SetTime(int64_t ns_since_epoch);

  const RowStyle style_;
  const std::string& shelf_;
  const StoreInfo& info_;
  Console& console_;
  const TierNames tiers_;
  const int64_t now_ns_;
  uint64_t count_ = 0, bytes_ = 0, damaged_ = 0;
  std::string row_;
  int64_t time_second_ = -1;  // the second that the two are of
  std::string time_text_, age_text_;
};

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_ROW_PRINTER_H_
