# What the sections share. Sourced by init; the steps run in subshells of it with -euo pipefail.

mount=/mnt/csd
drive=csd0 # the network namespace that is the inside of the drive
shim=/usr/local/lib/libnvsock.so
tracing=/sys/kernel/tracing
steps=0

# step "what it proves" FUNCTION [ARGUMENT...]: runs the function, 60 s at most, and prints its verdict; what it
# printed follows when it failed. Processes that it left in its group are killed. Fails as the function does, for
# "|| return" where the rest of a section would be pointless.
step() {
  local sentence=$1 group guard status=0
  shift
  steps=$((steps + 1))
  rm -f /run/step.log # services write to the one of the step that started them
  set -m
  (
    set +m
    set -euo pipefail
    "$@"
  ) >/run/step.log 2>&1 &
  group=$!
  (sleep 60 && echo "not over within 60 s" >>/run/step.log && kill -s KILL -- -$group) &
  guard=$!
  set +m
  wait $group 2>/dev/null || status=$?
  kill -s KILL -- -$guard -$group 2>/dev/null
  wait $guard 2>/dev/null
  if [ $status = 0 ]; then
    echo "ok - $sentence"
  else
    echo "not ok - $sentence"
    {
      tail -n 30 /run/step.log
      echo "exit status $status; processes that wait in the kernel:"
      stuck
      echo "log of csdfs:"
      tail -n 5 /run/syslog
      echo "kernel log:"
      dmesg | tail -n 15
    } 2>&1 | sed 's/^/#   /'
  fi
  return $status
}

# Up to $1 seconds for the rest of the line to succeed.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ $SECONDS -gt $deadline ]; then
      echo "not within the time: $*"
      return 1
    fi
    sleep 0.05
  done
}

# expect PATTERN COMMAND...: prints what the command prints, which must match. Its exit status is its own affair.
expect() {
  local pattern=$1 output
  shift
  output=$(timeout 20 "$@" 2>&1) || true
  printf '%s\n' "$output"
  grep -qE -- "$pattern" <<<"$output" || {
    echo "that should have matched: $pattern"
    return 1
  }
}

# fails PATTERN COMMAND...: the same for a command that must fail.
fails() {
  local pattern=$1 output status=0
  shift
  output=$(timeout 20 "$@" 2>&1) || status=$?
  printf '%s\n' "$output"
  [ $status != 0 ] && [ $status != 124 ] && grep -qE -- "$pattern" <<<"$output" || {
    echo "that should have failed with: $pattern (exit status $status)"
    return 1
  }
}

# "!" that set -e obeys.
not() {
  if "$@"; then
    echo "that should not have been so: $*"
    return 1
  fi
}

same() { cmp - "/srv/www/$1"; } # NAME: does standard input hold these bytes?

gone() { ! kill -0 "$1" 2>/dev/null; }
mounted() { grep -q " $mount fuse.csdfs " /proc/mounts; }
not_mounted() { ! mounted; }
no_csdfs() { ! pidof csdfs >/dev/null; }
size_over() { [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -gt "$2" ]; }

unmounted() { # unmounts, and waits for the end of csdfs
  timeout 20 umount $mount
  not_mounted
  within 10 no_csdfs
}

# Is the process inside a call on the mount that csdfs has not answered?
waits_for_csdfs() { [ "$(cat "/proc/$1/wchan" 2>/dev/null)" = request_wait_answer ]; }

# The same, in a read() whose descriptor 3 is the first file opened.
waits_in_read() { waits_for_csdfs "$1" && grep -q '^0 0x3 ' "/proc/$1/syscall"; }

# Processes that no signal would reach.
stuck() { grep -lsE '^[0-9]+ \(.*\) D ' /proc/[0-9]*/stat | while read -r file; do
  echo "$(cut -d' ' -f1-3 "$file") $(cat "${file%stat}wchan" "${file%stat}stack" 2>/dev/null | tr '\n' ' ')"
done; }
none_stuck() { [ -z "$(stuck)" ]; }
nothing_stuck() {
  within 10 none_stuck || {
    stuck
    return 1
  }
}

bugs='BUG|WARNING|Oops|Call Trace|blocked for more|stall|[Tt]imeout|[Tt]imed out'

# An emulated processor's lack of time.
noise='hrtimer: interrupt took|clocksource|hogged CPU'

# Since the last call the kernel has told no warning, nor anything that sounds like one. $1: what may be there.
kernel_is_content() {
  local allowed=${1:-^$} lines
  nothing_stuck
  lines=$({
    dmesg --level emerg,alert,crit,err,warn
    dmesg | grep -E "$bugs" || true
  } | grep -vE "$noise|$allowed" | sort -u) || true
  dmesg --clear
  printf '%s\n' "$lines"
  [ -z "$lines" ]
}

# The services inside the drive, once for all sections: ssh, HTTP, an echo, one that keeps what it was sent in
# /run/sink, one that sends a file, one that never reads.
start_services() {
  ip netns add $drive
  ip -n $drive link set lo up
  mkdir -p /srv/www /root/.ssh /etc/ssh
  head -c 2m /dev/urandom >/srv/www/small
  head -c 20m /dev/urandom >/srv/www/large
  ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/host_key
  ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
  cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
  echo "127.0.0.1 $(cut -d' ' -f1,2 /etc/ssh/host_key.pub)" >/root/.ssh/known_hosts
  printf '%s\n' 'HostKey /etc/ssh/host_key' 'PidFile none' 'UsePAM no' 'UseDNS no' 'StrictModes no' \
    'PermitRootLogin prohibit-password' 'PrintMotd no' 'PrintLastLog no' >/etc/ssh/sshd_config
  local inside=(ip netns exec $drive setsid)
  local address="bind=127.0.0.1,reuseaddr,fork"
  "${inside[@]}" /usr/sbin/sshd -D -o ListenAddress=127.0.0.1 &
  "${inside[@]}" httpd -f -p 127.0.0.1:80 -h /srv/www &
  "${inside[@]}" socat TCP-LISTEN:7,$address PIPE &
  "${inside[@]}" socat -u TCP-LISTEN:9,$address SYSTEM:'cat >/run/sink.part; mv /run/sink.part /run/sink' &
  "${inside[@]}" socat -U TCP-LISTEN:19,$address OPEN:/srv/www/small &
  "${inside[@]}" socat TCP-LISTEN:13,$address SYSTEM:'exec sleep 1000' &
  within 20 listening 22 80 7 9 19 13
}

listening() {
  local port
  for port in "$@"; do [ -n "$(ip netns exec $drive ss -Hltn "sport = :$port")" ] || return 1; done
}
