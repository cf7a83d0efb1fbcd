"""A real sshd inside a network namespace, and an ssh client that knows nothing but it.

Nothing of the machine's ssh configuration is read: keys, configuration and accounts are made here, and sshd
sees the accounts through a private mount namespace (so a locked root account or a strange shell does not matter).
"""

import os
import socket
import subprocess

from .wait import eventually

ACCOUNTS = """root:x:0:0:root:{home}:/bin/bash
sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534::/:/usr/sbin/nologin
"""
SHADOW = """root:*:19000:0:99999:7:::
sshd:!:19000::::::
nobody:*:19000::::::
"""
SERVER = """ListenAddress 127.0.0.1:22
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/key.pub
PidFile none
UsePAM no
UseDNS no
StrictModes no
PermitRootLogin prohibit-password
PermitUserRC no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
"""
CLIENT = """Host *
  User root
  IdentityFile {directory}/key
  IdentitiesOnly yes
  UserKnownHostsFile {directory}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 20
  LogLevel ERROR
"""


class Sshd:
    """sshd on 127.0.0.1:22 of a namespace. `config` is for ssh -F and scp -F, `home` is root's inside."""

    def __init__(self, test, netns):
        directory = test.scratch()
        self.home = os.path.join(directory, "home")
        self.config = os.path.join(directory, "client")
        os.mkdir(self.home)
        for name in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/{name}"], check=True)
        with open(f"{directory}/host_key.pub", encoding="utf-8") as key:
            known = "127.0.0.1 " + " ".join(key.read().split()[:2]) + "\n"
        for name, text in (("passwd", ACCOUNTS), ("shadow", SHADOW), ("server", SERVER), ("client", CLIENT),
                           ("known_hosts", known)):
            with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
                file.write(text.format(home=self.home, directory=directory))
        os.makedirs("/run/sshd", exist_ok=True)  # sshd insists on it
        script = ('mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/shadow" /etc/shadow && '
                  'exec /usr/sbin/sshd -D -f "$0/server" -E "$0/log"')
        self.process = netns.spawn(["unshare", "--mount", "--propagation", "slave", "bash", "-c", script, directory],
                                   stdin=subprocess.DEVNULL)
        test.addCleanup(self._end)

        def banner():
            if self.process.poll() is not None:
                with open(f"{directory}/log", encoding="utf-8") as log:
                    raise AssertionError("sshd ended: " + log.read())
            return netns.run(_banner)

        eventually(banner, 10, "sshd answers")

    def _end(self):
        self.process.terminate()
        self.process.wait()

    def shell(self, command):
        """The command line, for a shell, that runs `command` inside through whatever connect() does."""
        return f"ssh -F {self.config} 127.0.0.1 '{command}'"


def _banner():
    with socket.socket() as sock:
        sock.settimeout(2)
        try:
            sock.connect(("127.0.0.1", 22))
            return sock.recv(100).startswith(b"SSH-")
        except OSError:
            return False
