"""The compiled loops of decoding; fairbeam works without them, slower. All else stands in ``setup.cfg``."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "fairbeam.network.inference._native",
            ["user_dir/fairbeam/network/inference/csrc/native.cpp"],
            extra_compile_args=["-O3", "-std=c++17", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"],
            optional=True,
        )
    ]
)
