# A CSD on the network: csd-target in this machine, with the kernel's own NVMe/TCP driver as its host. csdfs uses that
# driver as it does with a drive in a slot, by io_uring and by ioctl, which must give the same results.

nqn=nqn.2026-11.test.nvsock:csd

listens() { [ -n "$(ss -Hltn 'sport = :4420')" ]; }
silent() { ! listens; }
controller() { basename "$(dirname "$(grep -lxsF $nqn /sys/class/nvme/*/subsysnqn)")"; }
live() { [ "$(cat "/sys/class/nvme/$(controller)/state" 2>/dev/null)" = live ]; }
no_controller() { ! grep -qxsF $nqn /sys/class/nvme/*/subsysnqn; }
namespace() { # its block device: the one that is neither the plain SSD nor a path (nvme1c1n1)
  basename "$(ls -d /sys/block/nvme*n* | grep -E 'nvme[1-9][0-9]*n')"
}

target_starts() {
  setsid csd-target --listen 127.0.0.1:4420 --nqn $nqn --size 64M --netns $drive --lease 15 >/run/target.log 2>&1 &
  within 10 listens || {
    cat /run/target.log
    return 1
  }
  within 5 grep -F $nqn /run/target.log
}

target_ends() { # SIGNAL
  kill -s "$1" "$(pidof csd-target)"
  within 10 silent
}

discovered() { expect "subnqn: *$nqn" nvme discover -t tcp -a 127.0.0.1 -s 4420; }

# A reconnect is tried every second, for 15 s, after which the kernel removes the controller.
connected() {
  timeout 30 nvme connect -t tcp -a 127.0.0.1 -s 4420 -n $nqn --reconnect-delay=1 --ctrl-loss-tmo=15
  within 10 live
}

identified() {
  expect '^cntrltype' nvme id-ctrl "/dev/$(controller)"
  expect '^avscc *: 0x1$' nvme id-ctrl "/dev/$(controller)"
  expect '^ACS194 ' nvme effects-log --csi=0 "/dev/$(controller)"  # C2h, of the relay protocol
  expect "/dev/$(namespace)" nvme list
}

blocks() {
  local device
  device=/dev/$(namespace)
  timeout 30 dd if=/srv/www/large of="$device" bs=1M oflag=direct
  timeout 30 dd if="$device" bs=1M count=20 iflag=direct | same large
}

mounts_controller() { # PORT [OPTION]: what status must say, what the device is given
  csdfs "/dev/$(controller)${2-}" $mount
  mounted
  expect "^port: $1\$" cat $mount/status
}

# As on machines whose administrator forbids io_uring. Linux 6.1 has no such switch.
forbidden_ring() {
  local switch=/proc/sys/kernel/io_uring_disabled
  [ -e $switch ] || return 0
  echo 2 >$switch
  fails "^csdfs: cannot use /dev/$(controller) by io_uring: sysctl" \
    csdfs "/dev/$(controller)?passthrough=io_uring" $mount
  mounts_controller 'ioctl passthrough \(no io_uring: sysctl .*\)'
  echo 0 >$switch
  expect '^SSH-2.0-' head -n 1 $mount/tcp/127.0.0.1:22
  unmounted
}

# csdfs killed while the drive has a command of it, which nothing can cancel. By io_uring it is gone at once and leaves
# the command to the kernel; by ioctl it goes when the command ends, at most 10 s later.
killed() { # io_uring|ioctl
  local reader
  unmounted
  echo 1 >$tracing/events/nvme/enable
  echo >$tracing/trace
  mounts_controller "$1 passthrough" "?passthrough=$1"
  cat $mount/tcp/127.0.0.1:7 &
  reader=$!
  within 10 waits_in_read $reader
  within 5 command_in_drive
  kill -s KILL "$(pidof csdfs)"
  if [ "$1" = io_uring ]; then
    within 2 no_csdfs
    command_in_drive
  fi
  within 15 no_csdfs
  not wait $reader
  within 15 not command_in_drive
  echo 0 >$tracing/events/nvme/enable
  nothing_stuck
}

# One that was traced on its way there and not on its way back. A csdfs that has ended may have left others.
command_in_drive() {
  awk -v admin="$(controller): qid=0," '
    index($0, admin) && match($0, /cmdid=[0-9]+/) {
      id = substr($0, RSTART, RLENGTH)
      if (/nvme_setup_cmd/) left[id] = 1; else delete left[id]
    }
    END { for (id in left) exit 0; exit 1 }' $tracing/trace
}

# Transfers in both directions, slow enough that the command given here runs in the middle of them.
survive() {
  local down up piece resumed
  resumed=$(resumptions)
  rm -f /run/got /run/sink
  through_shim curl -sS --limit-rate 4M http://127.0.0.1/large -o /run/got &
  down=$!
  for piece in {0..19}; do
    dd if=/srv/www/large bs=1M skip="$piece" count=1 status=none
    sleep 0.2
  done >$mount/tcp/127.0.0.1:9 &
  up=$!
  within 15 size_over /run/got 2000000
  "$@"
  not gone $down
  not gone $up
  within 10 resumed_since "$resumed"
  wait $down
  wait $up
  same large </run/got
  within 20 test -e /run/sink
  same large </run/sink
}

resumptions() { grep -c 'the session was resumed' /run/syslog || true; }
resumed_since() { [ "$(resumptions)" -gt "$1" ]; }

reset() { timeout 30 nvme reset "/dev/$(controller)"; }

reconnections() { dmesg | grep -c 'Successfully reconnected' || true; }
reconnected_since() { [ "$(reconnections)" -gt "$1" ]; }

connection_lost() {
  local before
  before=$(reconnections)
  ss -K dst 127.0.0.1 dport = 4420
  within 15 reconnected_since "$before"
}

# Another csd-target knows nothing of the sessions of the first: connections end, the mount goes on.
target_replaced() {
  local reader
  cat $mount/tcp/127.0.0.1:7 &
  reader=$!
  within 10 waits_in_read $reader
  target_ends KILL
  target_starts
  within 15 live
  within 20 gone $reader
  not wait $reader
  expect '^SSH-2.0-' head -n 1 $mount/tcp/127.0.0.1:22
}

# Whatever becomes of a transfer whose controller is taken away: it ends, and never with other bytes and no error. So
# does a read that waits.
disconnected() {
  local client reader
  cat $mount/tcp/127.0.0.1:7 &
  reader=$!
  within 10 waits_in_read $reader
  rm -f /run/got
  through_shim curl -sS --limit-rate 4M http://127.0.0.1/large -o /run/got &
  client=$!
  within 15 size_over /run/got 2000000
  timeout 30 nvme disconnect -n $nqn
  within 10 no_controller
  connected
  within 40 gone $client
  if wait $client; then same large </run/got; fi
  within 40 gone $reader
  not wait $reader
}

target_gone() {
  local one other
  cat $mount/tcp/127.0.0.1:7 &
  one=$!
  cat $mount/tcp/127.0.0.1:7 &
  other=$!
  within 10 waits_in_read $one
  within 10 waits_in_read $other
  target_ends KILL
  kill -s KILL $one
  within 5 gone $one
  within 30 gone $other
  not wait $other
}

step "csd-target listens" target_starts || return
step "nvme discover finds it" discovered
step "nvme connect makes it a controller" connected || return
step "nvme list and nvme id-ctrl show it" identified
step "dd writes its namespace and reads it back" blocks
step "csdfs mounts it, by io_uring" mounts_controller 'io_uring passthrough' || return
step "head reads a connection, errors have their names" files
step "exec 3<> talks HTTP" descriptors
step "socat sends and receives at the same time" polled
step "dd sends every byte" sent large
step "curl over the shim" curl_over_shim
step "ssh over the shim, both ways" ssh_over_shim
step "transfers survive nvme reset" survive reset
step "transfers survive the loss of the NVMe/TCP connections" survive connection_lost
step "after kill -9 of csd-target its successor serves the same mount" target_replaced
step "kill -9 of csdfs ends it at once, whatever the drive has of it" killed io_uring
step "csdfs mounts it by io_uring alone" mounts_controller 'io_uring passthrough' '?passthrough=io_uring' || return
step "nvme disconnect ends a transfer and a read, and loses nothing silently" disconnected
step "unmounting ends csdfs" unmounted
step "where io_uring is forbidden it is ioctl, or an error" forbidden_ring
step "csdfs mounts the new controller by ioctl" mounts_controller 'ioctl passthrough' '?passthrough=ioctl' || return
step "ioctl: head reads a connection, errors have their names" files
step "ioctl: socat sends and receives at the same time" polled
step "ioctl: dd sends every byte" sent large
step "ioctl: curl over the shim" curl_over_shim
step "ioctl: transfers survive nvme reset" survive reset
step "ioctl: kill -9 of csdfs ends it when what the drive has of it ends" killed ioctl
step "csdfs mounts it by ioctl again" mounts_controller 'ioctl passthrough' '?passthrough=ioctl' || return
step "ioctl: kill -9 of csd-target: who waits can be killed, or gets an error within the lease" target_gone
step "unmounting ends csdfs" unmounted
step "the kernel has removed the controller" within 30 no_controller
step "csd-target starts once more" target_starts
step "SIGTERM ends it" target_ends TERM
# 880 is 370h, "host path error": the driver's farewell to a controller that is gone already.
step "the kernel has nothing to say but that connections were lost" kernel_is_content \
  'nvme nvme[0-9]+: (resetting controller|starting error recovery|Reconnecting in|failed to send request|failed to connect socket: -111|Failed reconnect attempt|Removing controller|Property Set error: 880)'
