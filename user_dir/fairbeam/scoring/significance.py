"""Significance of differences between systems: sacreBLEU's paired tests."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring.metrics import MetricOptions, sacrebleu_metric
from fairbeam.scoring.references import References, aligned, padded_streams


class PairedResults(NamedTuple):
    """Result of sacreBLEU's ``PairedTest``.

    Attributes:
        signatures: signature of each metric, with seed and number of trials.
        table: columns by name. ``System`` holds the names, baseline first; each metric holds one
            ``sacrebleu.significance.Result`` (score, p_value, mean, ci) per system.
    """

    signatures: dict[str, str]
    table: dict[str, list[Any]]


def paired_test(
    systems: Mapping[str, Sequence[str]],
    references: References,
    metrics: Sequence[str] = ("bleu",),
    *,
    test: Literal["bs", "ar"] = "bs",
    samples: int = 0,
    options: MetricOptions | None = None,
) -> PairedResults:
    """Test the difference of every system from the first one, the baseline, on each metric.

    Args:
        systems: hypotheses by system name.
        references: one entry per sentence: a string or several.
        metrics: names among ``bleu``, ``chrf`` and ``ter``.
        test: ``bs``, paired bootstrap resampling (Koehn, 2004), or ``ar``, approximate randomization
            (Riezler and Maxwell, 2005).
        samples: number of resamples or trials; 0 for sacreBLEU's default, 1,000 or 10,000.
        options: of the metrics; defaults if None.

    Raises:
        InputError: a system's length differs from the references', or there is no sentence.
        ConfigError: there are fewer than two systems, or a metric has no paired test.
    """
    # Imported here because only this part of sacreBLEU needs numpy.
    from sacrebleu.significance import PairedTest

    if len(systems) < 2:
        raise ConfigError(f"{len(systems)} system given; a paired test needs a baseline and at least one more")
    if not references:
        raise InputError("no sentence to score; expected at least one hypothesis")
    for hypotheses in systems.values():
        entries = aligned(hypotheses, references)
    chosen = {name.upper(): sacrebleu_metric(name, options or MetricOptions()) for name in metrics}
    named: list[tuple[str, Sequence[str]]] = [(name, list(hypotheses)) for name, hypotheses in systems.items()]
    signatures, table = PairedTest(named, chosen, padded_streams(entries), test_type=test, n_samples=samples)()
    return PairedResults({name: str(signature) for name, signature in signatures.items()}, table)
