"""Check the native library: format, warnings, property tests and fuzzed decodes under sanitizers.

An instrumented library is built in a temporary folder; the installed one is left alone. AddressSanitizer and
UndefinedBehaviorSanitizer stop at the first error. Tests run once for each instruction set the processor has.
"""

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INFERENCE = ROOT / "user_dir/fairbeam/network/inference"
CSRC = INFERENCE / "csrc"
TESTS = ["tests/network/inference", "tests/generation/search/test_beam_ops.py"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
INSTRUCTION_SETS = ("baseline", "avx2", "vnni")


def run(*command: str | Path, **environment: str) -> None:
    """Run a command, or end with its status."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env={**os.environ, **environment}, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit status {done.returncode}")


def output_of(*command: str) -> str:
    """Return what a command prints, without the newline."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(compiler: str, target: Path, *options: str) -> None:
    """Build the library from the sources."""
    source_hash = runpy.run_path(str(INFERENCE / "source_hash.py"))["source_hash"]
    define = f'-DFAIRBEAM_SOURCE_HASH="{source_hash(CSRC)}"'
    common = ["-std=c++20", "-fPIC", "-shared", "-fvisibility=hidden", define, *WARNINGS]
    run(compiler, *common, *options, *sorted(CSRC.glob("*.cpp")), "-o", target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decodes", type=int, default=500, help="fuzzed decodes under sanitizers")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    compiler = os.environ.get("CXX", "g++")
    sources = sorted([*CSRC.glob("*.cpp"), *CSRC.glob("*.h")])
    beside = Path(sys.executable).with_name("clang-format")
    run(beside if beside.exists() else "clang-format", "--dry-run", "-Werror", *sources)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "_native.so"
        build(compiler, library, "-O3")
        print("no warnings at -O3", flush=True)
        build(compiler, library, "-O1", "-g", *SANITIZERS)
        environment = {
            "FAIRBEAM_NATIVE_LIBRARY": str(library),
            "LD_PRELOAD": " ".join(output_of(compiler, f"-print-file-name=lib{name}.so") for name in ("asan", "ubsan")),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python and torch keep what they have
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "OMP_NUM_THREADS": "1",
        }
        for isa in INSTRUCTION_SETS:
            print(f"{isa}:", flush=True)
            isa_environment = {**environment, "FAIRBEAM_CPU_ISA": isa}
            run(sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *TESTS, **isa_environment)
            decodes = asked.decodes if isa == INSTRUCTION_SETS[-1] else asked.decodes // 10
            fuzz = ["--decodes", str(decodes), "--seed", str(asked.seed)]
            run(sys.executable, "scripts/fuzz_native.py", *fuzz, **isa_environment)


if __name__ == "__main__":
    main()
