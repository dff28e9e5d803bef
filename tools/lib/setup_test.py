#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests tools/setup in a copy of its own, with a pip, a dpkg-query and an apt-get that are played, so without network.

usage: tools/lib/setup_test.py
"""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

TOOLS = pathlib.Path(__file__).resolve().parents[1]
PIP = """
import os, pathlib, shutil, sys, time
target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1])
with open(os.environ["PLAY"] + "/pip_calls", "a") as calls:
    calls.write("call\\n")
shutil.copytree(os.environ["PLAY"] + "/wheel", target)
time.sleep(float(os.environ.get("PIP_SECONDS", "0")))
if os.environ.get("PIP_MESSAGE"):
    sys.exit(os.environ["PIP_MESSAGE"])
(target / "torch/include/c10/core/TensorImpl.h").touch()
"""
DPKG = '#!/bin/sh\nfor p in "$@"; do case " $ABSENT " in *" $p "*) ;; *) echo "installed $p" ;; esac; done\n'


def make_torch(folder, version="2.11.0", complete=True):
    header = folder / "include/torch/headeronly/version.h"
    for part in ("lib", "include/c10/core", "share/cmake/Torch", "include/torch/headeronly"):
        (folder / part).mkdir(parents=True)
    for name in ("lib/libtorch_cpu.so", "lib/libc10.so", "__init__.py"):
        (folder / name).touch()
    numbers = zip(("MAJOR", "MINOR", "PATCH"), version.split("."))
    header.write_text("".join(f"#define TORCH_VERSION_{name} {number}\n" for name, number in numbers))
    if complete:
        (folder / "include/c10/core/TensorImpl.h").touch()
    return folder


class Setup(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.play = pathlib.Path(self.folder.name).resolve()
        self.root, self.cache = self.play / "checkout", self.play / "cache"
        (self.root / "tools").mkdir(parents=True)
        shutil.copy(TOOLS / "setup", self.root / "tools/setup")
        shutil.copytree(TOOLS / "lib", self.root / "tools/lib")
        make_torch(self.play / "wheel/torch", complete=False)
        (self.play / "python/pip").mkdir(parents=True)
        (self.play / "python/pip/__init__.py").touch()
        (self.play / "python/pip/__main__.py").write_text(PIP)
        (self.play / "bin").mkdir()
        self.script("dpkg-query", DPKG)
        self.script("apt-get", '#!/bin/sh\necho "$@" >>"$PLAY/apt_calls"\nexit "${APT_STATUS:-0}"\n')
        self.script("sudo", "#!/bin/sh\nexit 1\n")

    def script(self, name, text):
        (self.play / "bin" / name).write_text(text)
        (self.play / "bin" / name).chmod(0o755)

    def environment(self, changes):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("CONCLAVE", "Torch", "PIP", "PYTHON"))}
        base = {"PLAY": self.play, "TMPDIR": self.play, "CONCLAVE_CACHE": self.cache,
                "PYTHONPATH": self.play / "python"}
        path = f"{self.play / 'bin'}:{kept['PATH']}"
        return {**kept, "PATH": path, **{name: str(value) for name, value in {**base, **changes}.items()}}

    def start(self, *arguments, cwd=None, **changes):
        return subprocess.Popen([self.root / "tools/setup", *arguments], env=self.environment(changes), text=True,
                                cwd=cwd or self.play, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def setup(self, *arguments, expect=0, **changes):
        run = self.start(*arguments, **changes)
        out, err = run.communicate()
        self.assertEqual(run.returncode, expect, err)
        return out.strip(), err

    def calls(self, of):
        file = self.play / f"{of}_calls"
        return file.read_text().splitlines() if file.exists() else []

    def test_fetches_once_then_remembers(self):
        expected = str(self.cache / "torch-2.11.0/torch")
        self.assertEqual(self.setup("--print-torch")[0], expected)
        self.assertEqual(self.setup("--print-torch"), (expected, ""))
        (self.root / "build/setup.env").unlink()
        self.assertEqual(self.setup("--print-torch")[0], expected)
        self.assertEqual(self.calls("pip"), ["call"])
        self.assertEqual(sorted(path.name for path in self.cache.iterdir()), ["torch-2.11.0", "torch.lock"])

    def test_a_torch_that_vanished_is_fetched_again(self):
        self.setup()
        shutil.rmtree(self.cache)
        self.setup()
        self.assertEqual(len(self.calls("pip")), 2)

    def test_a_named_torch_is_used_or_refused_never_replaced(self):
        good, new = make_torch(self.play / "good", "2.11.1"), make_torch(self.play / "new", "2.12.0")
        bare = make_torch(self.play / "bare", complete=False)
        self.assertEqual(self.setup("--print-torch", CONCLAVE_TORCH=good)[0], str(good))
        self.assertEqual(self.setup("--print-torch", CONCLAVE_TORCH="good")[0], str(good))
        self.assertEqual(self.setup("--print-torch", Torch_DIR=good / "share/cmake/Torch")[0], str(good))
        self.assertIn("it is version 2.12.0; 2.11 is needed", self.setup(CONCLAVE_TORCH=new, expect=1)[1])
        self.assertIn("headers are incomplete", self.setup(CONCLAVE_TORCH=bare, expect=1)[1])
        self.assertIn("unset Torch_DIR", self.setup(Torch_DIR="/nowhere/a/b/c", expect=1)[1])
        self.assertEqual(self.calls("pip"), [])

    def test_the_torch_of_python_is_used_unless_its_version_is_wrong(self):
        make_torch(self.play / "python/torch", "2.11.0")
        self.assertEqual(self.setup("--print-torch")[0], str(self.play / "python/torch"))
        shutil.rmtree(self.play / "python/torch")
        make_torch(self.play / "python/torch", "2.13.0")
        (self.root / "build/setup.env").unlink()
        out, err = self.setup("--print-torch")
        self.assertIn("skipping the torch of python3", err)
        self.assertEqual(out, str(self.cache / "torch-2.11.0/torch"))

    def test_a_failed_fetch_leaves_nothing(self):
        self.assertIn("CONCLAVE_TORCH", self.setup(PIP_MESSAGE="no route", expect=1)[1])
        self.assertIn("is full", self.setup(PIP_MESSAGE="[Errno 28] No space left on device", expect=1)[1])
        self.assertEqual([path.name for path in self.cache.iterdir()], ["torch.lock"])
        self.assertFalse((self.root / "build/setup.env").exists())

    def test_a_half_torch_in_the_cache_is_replaced(self):
        make_torch(self.cache / "torch-2.11.0/torch", complete=False)
        self.assertIn("replacing", self.setup()[1])

    def test_two_at_once_fetch_once(self):
        runs = [self.start(PIP_SECONDS="1.5") for _ in range(2)]
        texts = [run.communicate()[1] for run in runs]
        self.assertEqual([run.returncode for run in runs], [0, 0], texts)
        self.assertEqual(self.calls("pip"), ["call"])

    def test_a_killed_one_does_no_harm(self):
        run = self.start(PIP_SECONDS="1.5")
        for _ in range(100):
            if self.calls("pip"):
                break
            time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
        run.wait()
        self.assertFalse((self.cache / "torch-2.11.0").exists())
        self.setup()
        run.communicate()
        self.assertEqual(sorted(path.name for path in self.cache.iterdir()), ["torch-2.11.0", "torch.lock"])

    def test_too_little_room_and_no_folder_are_said(self):
        self.script("df", "#!/bin/sh\nprintf 'head\\nx 1 1 2999999 1%% /\\n'\n")
        self.assertIn("2999 MB are free", self.setup(expect=1)[1])
        self.cache = self.play / "python/pip/__init__.py"
        self.assertIn("set CONCLAVE_CACHE to a writable folder", self.setup(expect=1)[1])

    def test_only_missing_packages_are_installed(self):
        self.setup()
        self.assertEqual(self.calls("apt"), [])
        _, err = self.setup(ABSENT="libfmt-dev libgtest-dev", CONCLAVE_SKIP_PACKAGES="1")
        self.assertIn("not checked", err)
        (self.root / "build/setup.env").unlink()
        _, err = self.setup(ABSENT="libfmt-dev libgtest-dev", APT_STATUS="1", expect=1)
        self.assertIn("apt-get install -y --no-install-recommends libfmt-dev libgtest-dev", err)
        self.assertFalse((self.root / "build/setup.env").exists())

    def test_comforts_may_be_missing(self):
        self.assertIn("going on without: clang-format", self.setup(ABSENT="clang-format", APT_STATUS="1")[1])
        self.assertEqual(self.setup(ABSENT="clang-format", APT_STATUS="1")[1], "")
        (self.root / "build/setup.env").unlink()
        self.assertIn("going on without: libgtest-dev", self.setup(ABSENT="libgtest-dev", APT_STATUS="1")[1])
        self.assertIn("missing packages: libgtest-dev", self.setup("--tests", ABSENT="libgtest-dev", APT_STATUS="1",
                                                                   expect=1)[1])

    def test_unknown_arguments_are_refused(self):
        self.assertIn("--help", self.setup("--no-such", expect=1)[1])
        self.assertIn("usage", self.setup("--help")[0])


if __name__ == "__main__":
    unittest.main()
