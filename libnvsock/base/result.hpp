// Errors as values: an errno for programs and one sentence for people. The one convention of the project:
// whatever can fail for a reason that somebody should hear returns a Result; a bool answers a question.
//
// The sentence says what failed, with which value, and what to do where that is known. It carries no
// program name and no trailing newline; whoever prints it adds those. Threads: any.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace nvsock {

struct Error {
  int code = 0;  // errno, never 0 in a failed Result
  std::string text;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Error error) : value_(std::move(error)) { assert(std::get<1>(value_).code != 0); }

  explicit operator bool() const { return value_.index() == 0; }
  T& operator*() { return std::get<0>(value_); }
  const T& operator*() const { return std::get<0>(value_); }
  T* operator->() { return &std::get<0>(value_); }
  const T* operator->() const { return &std::get<0>(value_); }
  const Error& error() const { return std::get<1>(value_); }  // REQUIRES: failed

 private:
  std::variant<T, Error> value_;
};

// Nothing but whether it succeeded: `return {};`.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) { assert(error_->code != 0); }

  explicit operator bool() const { return !error_; }
  const Error& error() const { return *error_; }  // REQUIRES: failed

 private:
  std::optional<Error> error_;
};

}  // namespace nvsock
