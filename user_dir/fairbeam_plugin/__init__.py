"""fairbeam inside fairseq: ``--user-dir`` imports this package, which mends fairseq and registers with it."""

from fairbeam.network import tune_memory
from fairbeam_plugin import patches, progress, scoring

tune_memory()
patches.apply()
scoring.apply()
progress.apply()

# Importing these registers them with fairseq; the mends above must be in place first.
from fairbeam_plugin.criterions import label_smoothed_cross_entropy  # noqa: E402, F401
from fairbeam_plugin.models import families, from_bundle, transformer  # noqa: E402, F401
from fairbeam_plugin.tasks import translation  # noqa: E402, F401
