// The counters of a store for Prometheus.

#ifndef TENSORSHELF_STORE_PROMETHEUS_TEXT_H_
#define TENSORSHELF_STORE_PROMETHEUS_TEXT_H_

#include <string>

#include "store/live_page.h"

namespace tensorshelf {

// The page in the text exposition format 0.0.4 (content type "text/plain; version=0.0.4"). Every series has the label
// `store`, the uuid, so that several stores can stand beside each other on one server. Histograms have the powers of
// two from 256 ns to 9 minutes as bounds. What a page does not count is left out.
std::string PrometheusText(const LivePage& page);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_PROMETHEUS_TEXT_H_
