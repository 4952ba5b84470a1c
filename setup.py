"""The native library of decoding kernels; fairbeam works without it, slower. All else stands in ``setup.cfg``."""

import runpy
from pathlib import Path

from setuptools import Extension, setup

INFERENCE = Path("user_dir/fairbeam/network/inference")
CSRC = INFERENCE / "csrc"
HASH = runpy.run_path(str(INFERENCE / "source_hash.py"))["source_hash"](CSRC)

setup(
    ext_modules=[
        Extension(
            "fairbeam.network.inference._native",
            sorted(map(str, CSRC.glob("*.cpp"))),
            depends=sorted(map(str, CSRC.glob("*.h"))),
            define_macros=[("FAIRBEAM_SOURCE_HASH", f'"{HASH}"')],
            extra_compile_args=["-O3", "-std=c++20", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
