// Errors as values: an errno for programs and one sentence for people.
//
// The sentence says what failed, with which value, and what to do where that is known. It carries no
// program name and no trailing newline; whoever prints it adds those.
#pragma once

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
  Result(Error error) : value_(std::move(error)) {}

  explicit operator bool() const { return value_.index() == 0; }
  T& operator*() { return std::get<0>(value_); }
  const T& operator*() const { return std::get<0>(value_); }
  T* operator->() { return &std::get<0>(value_); }
  const T* operator->() const { return &std::get<0>(value_); }
  const Error& error() const { return std::get<1>(value_); }  // REQUIRES: failed

 private:
  std::variant<T, Error> value_;
};

// Success without a value: `return {};`.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  explicit operator bool() const { return !error_; }
  const Error& error() const { return *error_; }  // REQUIRES: failed

 private:
  std::optional<Error> error_;
};

}  // namespace nvsock
