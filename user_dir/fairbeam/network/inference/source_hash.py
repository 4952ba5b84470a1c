"""The hash of the native library's sources, for the build and for the check at load. Standard library only."""

import hashlib
from pathlib import Path


def source_hash(folder: Path) -> str:
    """Return a sha256 over the names and contents of the C++ sources and headers in ``folder``."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.cpp"), *folder.glob("*.h")]):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
