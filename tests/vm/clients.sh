# What programs do with a mount: steps for every section that has one. Sourced by init.

through_shim() { # COMMAND...: 30 s at most
  LD_PRELOAD=$shim timeout 30 "$@"
}

files() {
  expect '^SSH-2.0-' head -n 1 $mount/tcp/127.0.0.1:22
  fails 'Connection refused' cat $mount/tcp/127.0.0.1:1
  fails 'No such file' cat $mount/tcp/127.0.0.1:70000
}

descriptors() {
  exec 3<>$mount/tcp/127.0.0.1:80
  printf 'GET /small HTTP/1.0\r\n\r\n' >&3
  timeout 30 cat <&3 >/run/answer
  exec 3>&-
  head -n 1 /run/answer
  tail -c 2m /run/answer | same small
}

polled() { # both directions at once, through a program that polls
  timeout 30 socat -t 3 - GOPEN:$mount/tcp/127.0.0.1/7 </srv/www/small | same small
}

# The kernel copies for these programs: sendfile, splice or copy_file_range, which direct_io files must refuse in a
# way that makes the programs read instead.
copies() {
  local source=$mount/tcp/127.0.0.1:19
  timeout 30 cat $source | same small
  timeout 30 cat $source >/run/copy
  same small </run/copy
  timeout 30 busybox cat $source | same small
  timeout 30 busybox cat $source >/run/copy
  same small </run/copy
  timeout 30 dd if=$source bs=1M | same small
}

sent() { # NAME
  rm -f /run/sink
  timeout 30 dd if="/srv/www/$1" of=$mount/tcp/127.0.0.1:9 bs=64k conv=fsync,notrunc
  within 20 test -e /run/sink
  same "$1" </run/sink
}

curl_over_shim() {
  through_shim curl -sS http://127.0.0.1/small | same small
  fails 'Failed to connect|refused|Couldn.t connect' curl -sS http://127.0.0.1/small # the machine's own 127.0.0.1
}

ssh_over_shim() {
  local ssh=(through_shim ssh root@127.0.0.1)
  [ "$("${ssh[@]}" 'ip netns identify $$')" = $drive ]
  "${ssh[@]}" 'cat >/run/uploaded && cat /run/uploaded' </srv/www/small | same small
}
