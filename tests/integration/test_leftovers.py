#!/usr/bin/env python3
"""tools/leftovers names what a run has left, of each kind, and nothing that is another's."""

import os
import subprocess
import tempfile
from unittest import mock

from harness.case import CsdTest, main
from harness.settings import ROOT
from harness.wait import Call


class Leftovers(CsdTest):
    def setUp(self):
        self.run_directory = self.scratch()

    def left(self):
        """What it names. It fails if and only if it names something."""
        done = subprocess.run([f"{ROOT}/tools/leftovers", self.run_directory, "0"], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 1 if done.stderr else 0, done.stderr)
        return [line.removeprefix("leftovers: ") for line in done.stderr.splitlines()[:-1]]

    def test_nothing_is_left(self):
        self.netns()
        self.process(["sleep", "100"])
        self.assertEqual(self.left(), [])

    def test_a_file(self):
        with open(f"{self.run_directory}/log", "wb"):
            pass
        self.assertEqual(self.left(), [f"file {self.run_directory}/log"])

    def test_a_mount(self):
        directory = f"{self.run_directory}/mnt"
        os.mkdir(directory)
        csdfs = self.mount(directory=directory).process
        self.assertEqual(self.left(), [f"process {csdfs.pid}: {' '.join(csdfs.args)}", f"mount {directory} of csdfs",
                                       f"file {directory}"])

    def test_a_network_namespace(self):
        with mock.patch.object(tempfile, "tempdir", self.run_directory):
            inside = self.netns()
        self.assertEqual(self.left(), [f"network namespace {inside.name}"])

    def test_a_process_by_whatever_gives_it_away(self):
        for options in ({"env": {**os.environ, "TMPDIR": self.run_directory}}, {"cwd": self.run_directory},
                        {"env": {"PATH": os.environ["PATH"], "HOME": self.run_directory + "/home"}}):
            with self.subTest(options.keys()):
                child = self.process(["sleep", "100"], **options)
                self.assertEqual(self.left(), [f"process {child.pid}: sleep 100"])
                child.kill()
                child.wait()
        child = self.process(["tail", "-f", "/dev/null", f"{self.run_directory}/missing"])
        self.assertEqual(self.left(), [f"process {child.pid}: tail -f /dev/null {self.run_directory}/missing"])

    def test_what_is_about_to_end_has_time_for_it(self):
        with open(f"{self.run_directory}/late", "wb"):
            pass
        look = Call(self.process([f"{ROOT}/tools/leftovers", self.run_directory, "100"]).wait)
        self.assertTrue(look.blocked(0.5))
        os.unlink(f"{self.run_directory}/late")
        self.assertEqual(look.result(), 0)


if __name__ == "__main__":
    main()
