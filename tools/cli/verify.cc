// tensorshelf verify: reads everything and compares it with its sums.

#include "store/verify.h"

#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"
#include "store/store.h"
#include "tools/cli/opening.h"
#include "tools/cli/progress.h"
#include "tools/cli/report.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"

namespace tensorshelf::cli {
namespace {

struct VerifyArguments : CommonOptions {
  std::string prefix;
  std::string rate;
};

Json VerifyJson(const VerifyReport& report, const StoreInfo& info, double seconds, std::vector<Json> damage) {
  Json json = Envelope("verify", info);
  json.update({{"names", report.names},
               {"objects_read", report.objects_read},
               {"shared_names", report.shared_names},
               {"changed_names", report.changed_names},
               {"bytes_read", report.bytes_read},
               {"seconds", seconds},
               {"damaged_names", report.damaged_names},
               {"damage_count", report.damage_count}});
  json["damage"] = std::move(damage);
  return json;
}

absl::StatusOr<ExitStatus> RunVerify(const VerifyArguments& arguments, Console& console) {
  VerifyOptions options;
  if (!arguments.rate.empty()) {
    TS_ASSIGN_OR_RETURN(options.rate_bytes_per_s, ParseBytes(arguments.rate));
    if (options.rate_bytes_per_s == 0) return UsageError("a rate of 0 would never end");
  }
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, OpenForReading(arguments.shelf, console));
  const StoreInfo info = store->info();
  std::vector<Json> damage;
  absl::Mutex mutex;  // damage comes from the reading threads, progress from this one; both write to the terminal
  ProgressLine line(console, "verify");
  options.on_damage = [&](const VerifyDamage& found) {
    absl::MutexLock lock(&mutex);
    if (arguments.json) return damage.push_back(DamageJson(found));
    line.Clear();
    console.out << RenderDamage(found, console) << std::flush;
  };
  if (console.progress) {
    options.progress = [&](const VerifyProgress& progress) {
      absl::MutexLock lock(&mutex);
      line.Update(progress.bytes_done, progress.bytes_total);
    };
  }
  const absl::Time started = absl::Now();
  TS_ASSIGN_OR_RETURN(const VerifyReport report, VerifyStore(*store, arguments.prefix, options));
  const double seconds = absl::ToDoubleSeconds(absl::Now() - started);
  line.Clear();
  console.out << (arguments.json ? Dump(VerifyJson(report, info, seconds, std::move(damage)))
                                 : RenderVerify(report, info, seconds, console));
  return report.damage_count == 0 ? ExitStatus::kClean : ExitStatus::kDamage;
}

}  // namespace

Verb AddVerify(CLI::App& app) {
  auto arguments = std::make_shared<VerifyArguments>();
  CommandLine line(
      app, "verify",
      "Read all objects and compare every block with its sum. Goes on after damage and lists all of it; exit "
      "status 4 when there is any.",
      arguments.get());
  line.Text("PREFIX", &arguments->prefix, "only names that begin so");
  line.Text("--rate", &arguments->rate, "read at most so many bytes a second, such as 200MB");
  return {line.command(), arguments, [arguments](Console& console) { return RunVerify(*arguments, console); }};
}

}  // namespace tensorshelf::cli
