"""Whether the difference between systems could be chance: sacreBLEU's paired tests."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring.metrics import MetricOptions, sacrebleu_metric
from fairbeam.scoring.references import References, aligned, padded_streams


class PairedResults(NamedTuple):
    """What sacreBLEU's ``PairedTest`` returns.

    Attributes:
        signatures: the signature of each metric, with seed and number of trials.
        table: under ``System`` the names, baseline first; under each metric one
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
    """Compare every system with the first, the baseline, on each metric.

    Args:
        systems: hypotheses by system name.
        references: one entry per sentence: a string or several.
        metrics: of ``bleu``, ``chrf`` and ``ter``.
        test: ``bs``, paired bootstrap resampling (Koehn, 2004), or ``ar``, approximate randomization
            (Riezler and Maxwell, 2005).
        samples: resamples or trials; 0 is sacreBLEU's default, 1,000 or 10,000.

    Raises:
        InputError: a system's length differs from the references', or there is nothing to score.
        ConfigError: fewer than two systems, or a metric without a paired test.
    """
    # Imported here because only this needs numpy.
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
