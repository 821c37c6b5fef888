#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "store/name.h"
#include "tools/cli/opening.h"
#include "tools/cli/report.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {

std::string RenderDamage(const VerifyDamage& damage, const Console& console) {
  std::string text = absl::StrCat(Painted(console, Colour::kRed, "damaged"), "  ", EscapeForTerminal(damage.name));
  if (damage.kind == ErrorKind::kCorruption) {
    absl::StrAppend(&text, ": block ", damage.block, ", ",
                    damage.file.empty() ? "in the index" : EscapeForTerminal(damage.file), " at offset ",
                    damage.offset);
  } else {
    absl::StrAppend(&text, ": ", PrintableMessage(damage.message));
  }
  return text + "\n";
}

Json DamageJson(const VerifyDamage& damage) {
  const bool placed = damage.kind == ErrorKind::kCorruption;
  return {{"name", damage.name},
          {"generation", damage.generation},
          {"kind", KindJson(damage.kind)},
          {"block", placed ? Json(damage.block) : Json(nullptr)},
          {"file", damage.file.empty() ? Json(nullptr) : Json(damage.file)},
          {"offset", placed ? Json(damage.offset) : Json(nullptr)},
          {"message", damage.message}};
}

std::string RenderVerify(const VerifyReport& report, const StoreInfo& info, double seconds, const Console& console) {
  std::string text =
      absl::StrCat(FormatCount(report.names, "name"), ", ", FormatCount(report.objects_read, "object"), " read, ",
                   FormatBytes(report.bytes_read), " in ", absl::StrFormat("%.1f s", seconds));
  if (seconds > 0) {
    absl::StrAppend(&text, " (", FormatBytes(static_cast<uint64_t>(static_cast<double>(report.bytes_read) / seconds)),
                    "/s)");
  }
  if (report.shared_names > 0) absl::StrAppend(&text, ", ", report.shared_names, " of the same objects");
  if (report.changed_names > 0) absl::StrAppend(&text, ", ", report.changed_names, " changed meanwhile");
  absl::StrAppend(&text, ", ", StandingText(info), "\n");
  if (report.damage_count == 0) return text + Painted(console, Colour::kGreen, "no damage found") + "\n";
  return absl::StrCat(text,
                      Painted(console, Colour::kRed,
                              absl::StrCat("damage found: ", FormatCount(report.damaged_names, "name"), ", ",
                                           FormatCount(report.damage_count, "place"))),
                      "\n");
}

}  // namespace tensorshelf::cli
