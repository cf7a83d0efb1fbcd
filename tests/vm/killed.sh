# csdfs killed in the middle: nobody waits for ever, and the next csdfs takes its place.

survivors() {
  local reader writer
  csdfs "emu:?netns=$drive&dialect=v2" $mount
  cat $mount/tcp/127.0.0.1:7 >/run/reader.out &
  reader=$!
  dd if=/dev/zero of=$mount/tcp/127.0.0.1:13 bs=64k &
  writer=$!
  within 10 waits_in_read $reader
  within 10 waits_in_write $writer
  kill -s KILL "$(pidof csdfs)"
  within 5 gone $reader
  within 5 gone $writer
  not wait $reader
  not wait $writer
}

# For a second it has been waiting, and nothing was taken off it.
waits_in_write() {
  local before
  before=$(grep wchar "/proc/$1/io")
  sleep 1
  waits_for_csdfs "$1" && [ "$before" = "$(grep wchar "/proc/$1/io")" ]
}

taken_over() {
  fails 'Transport endpoint is not connected' ls $mount
  csdfs "emu:?netns=$drive&dialect=v2" $mount
  [ "$(grep -c " $mount " /proc/mounts)" = 1 ]
  expect '^SSH-2.0-' head -n 1 $mount/tcp/127.0.0.1:22
  unmounted
}

step "kill -9 of csdfs ends those who wait, with an error" survivors
step "nothing is stuck then" nothing_stuck
step "the next csdfs replaces the dead mount" taken_over
step "the kernel has nothing to say about it" kernel_is_content
