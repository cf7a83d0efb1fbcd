# csdfs over a drive in software: what programs see through this kernel's FUSE, with both dialects.

mounts() {
  csdfs "emu:?netns=$drive&dialect=$1" $mount
  mounted
  expect '^device:' cat $mount/status
}

killed_reader() {
  local pid status=0
  cat $mount/tcp/127.0.0.1:7 &
  pid=$!
  within 10 waits_in_read $pid
  kill -s KILL $pid
  within 5 gone $pid
  wait $pid || status=$?
  [ $status = 137 ]
  within 10 no_connection 127.0.0.1:7
}
no_connection() { [ "$(grep -cF "$1" $mount/connections)" = 0 ]; }

for dialect in v1 v2; do
  step "$dialect: csdfs mounts a drive" mounts $dialect || continue
  step "$dialect: head reads a connection, errors have their names" files
  step "$dialect: exec 3<> talks HTTP" descriptors
  step "$dialect: socat sends and receives at the same time" polled
  step "$dialect: programs that let the kernel copy get every byte" copies
  step "$dialect: dd sends every byte" sent large
  step "$dialect: curl over the shim" curl_over_shim
  step "$dialect: ssh over the shim, both ways" ssh_over_shim
  step "$dialect: a waiting reader can be killed, which ends its connection" killed_reader
  step "$dialect: unmounting ends csdfs" unmounted
done
step "the kernel has nothing to say about it" kernel_is_content
