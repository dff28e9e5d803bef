#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs that find_package the installed library.

usage: consumer_test.py install BUILD SCRATCH           installs, moves the prefix, looks it over
       consumer_test.py link_library SCRATCH TORCH      builds examples/link_library against it and runs it
       consumer_test.py custom_router SCRATCH TORCH     builds the files of docs/add_a_router.md and trains with them
       consumer_test.py refusals SCRATCH TORCH          wrong LibTorch, incomplete LibTorch, unknown component
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/lib"))
sys.path.insert(0, str(ROOT / "tests/consumer"))
import doc_blocks  # noqa: E402
import router_check  # noqa: E402

# What the machine is set up with must not help: the prefix and the arguments alone have to do.
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k not in ("CONCLAVE_TORCH", "Torch_DIR", "LD_LIBRARY_PATH",
                                                                   "CMAKE_PREFIX_PATH")}, "OMP_NUM_THREADS": "1"}


def run(*command, cwd=None, fails=False):
    result = subprocess.run([str(word) for word in command], cwd=cwd, env=ENVIRONMENT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(f"$ {' '.join(map(str, command))}\n{result.stdout}", flush=True)
    if fails != (result.returncode != 0):
        sys.exit(f"exit code {result.returncode} was not expected")
    return result.stdout


def expect(condition, message):
    if not condition:
        sys.exit(message)


def configure(source, build, prefix, torch, fails=False):
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    return run("cmake", *generator, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}",
               f"-DCONCLAVE_TORCH={torch}", *launcher, fails=fails)


def install(build, scratch):
    shutil.rmtree(scratch, ignore_errors=True)
    run("cmake", "--install", build, "--prefix", scratch / "first")
    (scratch / "first").rename(scratch / "prefix")  # the package must not remember where it was
    prefix = scratch / "prefix"
    package = next(prefix.glob("lib*/**/conclaveConfig.cmake")).parent
    for name in ("conclaveConfigVersion.cmake", "conclaveTargets.cmake", "ConclaveTorch.cmake"):
        expect((package / name).is_file(), f"{package / name} is missing")
    for path in package.glob("*.cmake"):
        for folder in (str(ROOT), str(build), str(scratch)):
            expect(folder not in path.read_text(), f"{path} names {folder}")
    for path in (prefix / "bin/conclave", *prefix.glob("lib*/**/libconclave.so")):
        dynamic = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
        expect(str(build) not in dynamic, f"{path} looks for libraries in the build tree:\n{dynamic}")
    for name in ("share/doc/conclave/LICENSE", "share/doc/conclave/docs/library.md", "include/conclave/moe/make.h",
                 "share/doc/conclave/examples/link_library/main.cpp"):
        expect((prefix / name).is_file(), f"{name} was not installed")
    expect("conclave " in run(prefix / "bin/conclave", "version"), "the installed program does not run")
    run(prefix / "bin/conclave", "config", "check", prefix / "share/conclave/configs/quickstart.yaml")


def link_library(scratch, torch):
    build = scratch / "link_library"
    configure(ROOT / "examples/link_library", build, scratch / "prefix", torch)
    run("cmake", "--build", build)
    text = run(build / "link_library", ROOT / "LICENSE", 120, 7, cwd=build)
    first, last = map(float, re.search(r"^loss ([\d.]+) -> ([\d.]+)$", text, re.MULTILINE).groups())
    expect(last < 0.7 * first, f"the loss hardly fell: {first} to {last}")
    loads = [int(word) for word in re.search(r"^expert loads:((?: \d+)+)", text, re.MULTILINE)[1].split()]
    expect(len(loads) == 6 and sum(loads) == 120 * 256 * 2, f"every token has two experts, but the loads are {loads}")
    expect("saved and loaded: equal" in text, "the loaded model differs")
    expect(text == run(build / "link_library", ROOT / "LICENSE", 120, 7, cwd=build), "the same seed gave another run")


def custom_router(scratch, torch):
    page, source = ROOT / "docs/add_a_router.md", scratch / "custom_router"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name, text in doc_blocks.files(page).items():
        (source / name).write_text(text)
        example = ROOT / "examples/custom_router" / name
        expect(example.read_text() == text, f"{page} and {example} differ")
    configure(source, source / "build", scratch / "prefix", torch)
    run("cmake", "--build", source / "build")
    router_check.check(source / "build/my_conclave", source)


def refusals(scratch, torch):
    fake = scratch / "other_torch"
    for name, text in {
            "include/torch/headeronly/version.h": "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n"
                                                  "#define TORCH_VERSION_PATCH 1\n",
            "include/c10/core/TensorImpl.h": ""}.items():
        (fake / name).parent.mkdir(parents=True, exist_ok=True)
        (fake / name).write_text(text)
    source = scratch / "asks"
    source.mkdir(exist_ok=True)
    script = "cmake_minimum_required(VERSION 3.25)\nproject(asks LANGUAGES CXX)\nfind_package(conclave {})\n"
    for request, root, words in [
            ("REQUIRED", fake, ["was built with LibTorch 2.11", "is version 2.9.1", "-DCONCLAVE_TORCH="]),
            ("REQUIRED", scratch, ["no complete C++ headers"]),
            ("REQUIRED COMPONENTS core cuda", torch, ["without the component 'cuda'", "it has: core"]),
            ("9.0 REQUIRED", torch, ["9.0"])]:
        (source / "CMakeLists.txt").write_text(script.format(request))
        shutil.rmtree(source / "build", ignore_errors=True)
        text = " ".join(configure(source, source / "build", scratch / "prefix", root, fails=True).split())
        for word in words:
            expect(word in text, f"find_package(conclave {request}) does not say '{word}'")
    (source / "CMakeLists.txt").write_text(script.format("0.1 REQUIRED COMPONENTS core OPTIONAL_COMPONENTS cuda")
                                           + "if(conclave_cuda_FOUND)\n  message(FATAL_ERROR cuda)\nendif()\n")
    shutil.rmtree(source / "build", ignore_errors=True)
    configure(source, source / "build", scratch / "prefix", torch)


if __name__ == "__main__":
    actions = {"install": install, "link_library": link_library, "custom_router": custom_router, "refusals": refusals}
    if len(sys.argv) != 4 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    actions[sys.argv[1]](*(pathlib.Path(argument) for argument in sys.argv[2:]))
