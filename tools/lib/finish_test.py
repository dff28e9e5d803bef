# SPDX-License-Identifier: Apache-2.0
"""The end of tools/train with a program that stands in for conclave: exit codes, signals, report and sample."""
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))

PROGRAM = """#!/usr/bin/env bash
case "$1" in
  generate) [[ -n "${CAN_GENERATE:-}" ]] || exit 2
    [[ "$2" == --help ]] && exit 0
    [[ "$CAN_GENERATE" == yes ]] || exit 1
    printf 'once upon a time' ;;
  report) [[ -z "${NO_REPORT:-}" ]] || exit 3; printf '%s/report.html\\n' "$2" ;;
  stop) trap 'echo saved >&2; exit 143' TERM; echo ready; while :; do sleep 0.05; done ;;
  *) exit "$1" ;;
esac
"""


class Finish(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.program = os.path.join(self.folder.name, "program")
        with open(self.program, "w") as file:
            file.write(PROGRAM)
        os.chmod(self.program, 0o755)
        self.run_folder = os.path.join(self.folder.name, "run")
        os.mkdir(self.run_folder)

    def tearDown(self):
        self.folder.cleanup()

    def script(self, text):
        text = f"set -euo pipefail; source {HERE}/common.sh; source {HERE}/finish.sh; {text}"
        return ["bash", "-c", text, "train"]

    def result(self, **environment):
        command = self.script(f"show_result {self.program} {self.run_folder}")
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})

    def test_exit_codes_are_those_of_the_program(self):
        for code in (0, 2, 6, 143):
            command = self.script(f"s=0; run_and_forward {self.program} {code} || s=$?; exit $s")
            self.assertEqual(subprocess.run(command).returncode, code)

    def test_a_signal_reaches_the_program_and_its_code_comes_back(self):
        command = self.script(f"s=0; run_and_forward {self.program} stop || s=$?; exit $s")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "ready\n")
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 143)
        self.assertIn("saved", error)

    def test_report_and_sample(self):
        done = self.result(CAN_GENERATE="yes")
        self.assertEqual(done.returncode, 0)
        self.assertIn("once upon a time", done.stdout)
        self.assertTrue(done.stdout.endswith(f"report: {self.run_folder}/report.html\n"))
        with open(os.path.join(self.run_folder, "sample.txt")) as file:
            self.assertEqual(file.read(), "once upon a time")

    def test_a_program_that_cannot_generate_has_no_sample(self):
        done = self.result()
        self.assertEqual((done.returncode, done.stdout), (0, f"report: {self.run_folder}/report.html\n"))
        self.assertEqual(os.listdir(self.run_folder), [])

    def test_conveniences_that_fail_cost_nothing(self):
        done = self.result(CAN_GENERATE="but fails", NO_REPORT="1")
        self.assertEqual(done.returncode, 0)
        self.assertIn("no sample", done.stderr)
        self.assertIn("no report", done.stderr)
        self.assertEqual(os.listdir(self.run_folder), [])


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=0))
