"""What ``--user-dir user_dir`` names: importing it registers everything with fairseq.

This folder is also the source root that ``setup.cfg`` installs from. The checkout goes to the front of the
path so that ``--user-dir user_dir`` runs this code even where another copy is installed.
"""

import sys
from pathlib import Path

_HERE = str(Path(__file__).resolve().parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)

import fairbeam_plugin  # noqa: E402, F401
