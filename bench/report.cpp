#include "bench/report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

namespace bench {
namespace {

constexpr size_t name_width = 26;
constexpr size_t many_name_width = 30;
constexpr size_t value_width = 12;  // "123456 MB/s"
constexpr size_t ratio_width = 7;   // "123.4x"

const char* unit_name(Unit unit) {
  return unit == Unit::microseconds ? "us" : "MB/s";
}

std::string padded(const std::string& text, size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

__attribute__((format(printf, 1, 2))) std::string formatted(const char* format, ...) {
  std::array<char, 128> text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  return text.data();
}

std::string value_text(double value, Unit unit) {
  return formatted(unit == Unit::microseconds ? "%.1f %s" : "%.0f %s", value, unit_name(unit));
}

std::string ratio_text(double value, double plain, Unit unit) {
  return unit == Unit::microseconds ? formatted("%.1fx", value / plain)
                                    : formatted("%.0f %%", 100 * value / plain);
}

std::string row_of(const Figure& figure) {
  std::string row = figure.name + std::string(name_width - figure.name.size(), ' ');
  for (size_t column = 0; column < figure.samples.size(); ++column) {
    const auto& samples = figure.samples[column];
    const auto& plain = figure.samples.front();
    row += padded(samples.empty() ? "failed" : value_text(median(samples), figure.unit), value_width);
    if (column == 0) continue;
    const bool comparable = !samples.empty() && !plain.empty();
    row += padded(comparable ? ratio_text(median(samples), median(plain), figure.unit) : "", ratio_width);
  }
  return row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
}

}  // namespace

std::string table_of(const Results& results) {
  std::string table(name_width, ' ');
  for (const std::string& name : results.transports)
    table += padded(name, &name == &results.transports.front() ? value_width : value_width + ratio_width);
  table += "\n";
  for (const Figure& figure : results.figures) table += row_of(figure);
  if (results.measured.count() > 0) {
    const auto cpu = std::chrono::duration<double>(results.cpu_in_between).count();
    const auto measured = std::chrono::duration<double>(results.measured).count();
    table += formatted("\ncsdfs used %.1f s of CPU in the %.1f s in which it was measured: %.2f cores.\n",
                       cpu, measured, cpu / measured);
  }
  return table;
}

std::string json_of(const Results& results, const Plan& plan, const std::string& device,
                    const std::string& setting) {
  nlohmann::ordered_json json{{"setting", setting},
                              {"device", device},
                              {"rounds", plan.rounds},
                              {"milliseconds", plan.duration.count()},
                              {"complete", results.complete},
                              {"csdfs_cpu_milliseconds", results.cpu_in_between.count()},
                              {"csdfs_measured_milliseconds", results.measured.count()}};
  for (const Figure& figure : results.figures) {
    nlohmann::ordered_json columns;
    for (size_t column = 0; column < figure.samples.size(); ++column) {
      const auto& samples = figure.samples[column];
      if (!samples.empty())
        columns[results.transports[column]] = {{"median", median(samples)}, {"samples", samples}};
    }
    json["figures"].push_back(
        {{"name", figure.name}, {"unit", unit_name(figure.unit)}, {"transports", columns}});
  }
  return json.dump(2) + "\n";
}

std::string table_of(const std::vector<ManyRow>& ways) {
  std::string table(many_name_width, ' ');
  for (const ManyRow& way : ways) table += padded(way.way, value_width);
  for (const Named& named : named_figures) {
    table += "\n" + std::string(named.name) + std::string(many_name_width - std::strlen(named.name), ' ');
    for (const ManyRow& way : ways) {
      const double value = way.figures.*named.figure;
      table +=
          padded(formatted(value < 100 && value != std::floor(value) ? "%.1f" : "%.0f", value), value_width);
    }
  }
  return table + "\n";
}

std::string json_of(const std::vector<ManyRow>& ways) {
  nlohmann::ordered_json json;
  for (const ManyRow& way : ways) {
    for (const Named& named : named_figures) json["streams"][way.way][named.key] = way.figures.*named.figure;
  }
  return json.dump(2) + "\n";
}

}  // namespace bench
