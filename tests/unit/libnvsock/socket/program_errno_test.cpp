// The errnos of programs: the rows, the page that shows them, and what a drive cannot make a program believe.
#include "libnvsock/socket/program_errno.hpp"

#include <gtest/gtest.h>
#include <string.h>

#include <fstream>
#include <sstream>
#include <string>

namespace nvsock {
namespace {

std::string page() {
  std::ifstream file(NVSOCK_PRELOAD_PAGE);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ProgramErrno, the_page_lists_every_row) {
  const std::string text = page();
  ASSERT_FALSE(text.empty());
  for (const ProgramErrno& row : program_errnos) {
    const std::string line = std::string("| ") + row.what + " | " + strerrorname_np(row.file) + " | " +
                             strerrorname_np(row.connect) + " |\n";
    EXPECT_NE(text.find(line), std::string::npos) << "docs/preload.md lacks: " << line;
  }
}

TEST(ProgramErrno, the_page_lists_no_other_row) {
  const std::string text = page();
  const size_t begin = text.find("| the mount's file | `connect()` |\n");
  ASSERT_NE(begin, std::string::npos);
  std::istringstream table(text.substr(begin));
  std::string line;
  size_t rows = 0;
  while (std::getline(table, line) && line.starts_with('|')) ++rows;
  constexpr size_t heading = 2, unlisted = 2;
  EXPECT_EQ(rows, std::size(program_errnos) + heading + unlisted);
}

TEST(ProgramErrno, connect_tells_only_what_its_callers_know_or_what_is_true) {
  EXPECT_EQ(connect_errno(ENODEV), ENETUNREACH);
  EXPECT_EQ(connect_errno(EPROTONOSUPPORT), ENETUNREACH);
  EXPECT_EQ(connect_errno(ENOTCONN), ENETUNREACH);
  EXPECT_EQ(connect_errno(EPROTO), EPROTO);
  EXPECT_EQ(connect_errno(ECONNABORTED), ECONNABORTED);
  EXPECT_EQ(connect_errno(ENFILE), ENFILE);
  for (const int same :
       {ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EACCES, EMFILE, EINTR}) {
    EXPECT_EQ(connect_errno(same), same);
  }
  for (const int unknown : {EIO, EISDIR, ELOOP, ENOTSUP, 133, 4095}) {
    EXPECT_EQ(connect_errno(unknown), ENETUNREACH) << unknown;
  }
}

TEST(ProgramErrno, a_drive_cannot_say_that_a_connection_goes_on) {
  for (const int steers : {EAGAIN, EWOULDBLOCK, EINTR, EINPROGRESS, EALREADY, EISCONN}) {
    EXPECT_EQ(named_errno(static_cast<uint32_t>(steers)), ECONNRESET) << steers;
  }
}

TEST(ProgramErrno, a_drive_cannot_say_what_harms_the_mount) {
  EXPECT_EQ(named_errno(ENOSYS), EPROTO) << "the kernel would never ask again";
  for (const uint32_t none : {134u, 511u, 512u, 999u, 4095u, UINT32_MAX}) {
    EXPECT_EQ(named_errno(none), EPROTO) << none;
  }
  for (const int passes : {0, EPERM, EIO, ECONNREFUSED, EHOSTDOWN, 133}) {
    EXPECT_EQ(named_errno(static_cast<uint32_t>(passes)), passes);
  }
}

TEST(ProgramErrno, an_open_that_failed_without_a_cause_is_told_by_its_circumstances) {
  EXPECT_EQ(opening_errno(0), ECONNREFUSED);
  EXPECT_EQ(opening_errno(0, false, true), ETIMEDOUT);
  EXPECT_EQ(opening_errno(0, true, true), ENFILE);
  EXPECT_EQ(opening_errno(EHOSTUNREACH, true, true), EHOSTUNREACH);
}

TEST(ProgramErrno, a_reset_behind_the_peers_end_is_epipe) {
  EXPECT_EQ(ending_errno(0, false), ECONNRESET);
  EXPECT_EQ(ending_errno(ECONNRESET, false), ECONNRESET);
  EXPECT_EQ(ending_errno(0, true), EPIPE);
  EXPECT_EQ(ending_errno(ECONNRESET, true), EPIPE);
  EXPECT_EQ(ending_errno(ETIMEDOUT, true), ETIMEDOUT);
}

TEST(ProgramErrno, a_lost_drive_is_told_from_a_lost_command) {
  for (const int gone : {ENODEV, ENXIO}) {
    EXPECT_TRUE(means_drive_gone(gone));
    EXPECT_EQ(named_errno(static_cast<uint32_t>(gone)), gone);
    EXPECT_EQ(connect_errno(gone), ENETUNREACH);
  }
  EXPECT_FALSE(means_drive_gone(EINTR));
}

TEST(ProgramErrno, no_csdfs_is_told_from_a_refusal) {
  for (const int missing : {ENOENT, ENOTDIR, ENOTCONN, ECONNABORTED}) EXPECT_TRUE(means_no_csdfs(missing));
  for (const int other : {ECONNREFUSED, EACCES, EMFILE, ENODEV}) EXPECT_FALSE(means_no_csdfs(other));
}

}  // namespace
}  // namespace nvsock
