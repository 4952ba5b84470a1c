"""How decoding grows: time against beam, source length, batch size and lines of input, and memory against lines.

Each line of figures gets the slope of its logarithms (1 is proportional, 2 quadratic, 0 constant). Figures go to a JSON
file and a picture, ``docs/scaling.svg``; ``--quick`` measures fewer and smaller points. Run it with nothing else
running.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FAIRBEAM_DATA") or ROOT.parent / "shared" / "data") / "multi30k"
MODEL = Path(os.environ.get("FAIRBEAM_MODELS") or ROOT.parent / "shared" / "models") / "multi30k-en-de/checkpoint.pt"


@dataclass(frozen=True)
class Line:
    """One thing measured against another, both above 0."""

    title: str
    x: str
    y: str
    points: list[tuple[float, float]]

    @property
    def slope(self) -> float:
        """Of the straight line through the logarithms, by least squares."""
        xs, ys = np.log(np.array(self.points)).T
        return float(np.polyfit(xs, ys, 1)[0])


def sentences() -> list[str]:
    """The Multi30k test set."""
    return (DATA / "test.en").read_text(encoding="utf-8").splitlines()


def fastest(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several rounds."""

    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return min(once() for _ in range(rounds))


def times(precision: str, rounds: int, quick: bool) -> Iterator[Line]:
    """Time against beam, length and batch, in this process with one worker."""
    from fairbeam.translator import DecodingLimits, load

    model = load(MODEL, precision=precision, workers=1)
    lines = sentences()
    model.translate(lines[:16])

    def decode(text: Sequence[str], batch: int, **options: object) -> float:
        limits = DecodingLimits(batch_size=batch, max_tokens=1 << 30)
        return fastest(rounds, lambda: model.translate(text, limits=limits, **options))

    few = lines[: 16 if quick else 64]
    beams = [1, 4, 16] if quick else [1, 2, 4, 8, 16, 32]
    points = [(beam, decode(few, 32, beam=beam) / len(few) * 1000) for beam in beams]
    yield Line("Beam", "beam", "ms a sentence, batches of 32", points)

    words = " ".join(lines).split()
    lengths = [10, 40, 160] if quick else [10, 25, 50, 100, 200, 400]
    points = []
    for length in lengths:
        texts = [exactly(model.source.encode, words[start:], length) for start in range(0, 800, 100)]
        points.append((length, decode(texts, 8, match_source_len=True) / len(texts) * 1000))
    yield Line("Length", "tokens of source and output", "ms a sentence, batches of 8", points)

    few = lines[: 64 if quick else 256]
    batches = [1, 8, 64] if quick else [1, 2, 4, 8, 16, 32, 64, 128, 256]
    points = [(batch, decode(few, batch) / len(few) * 1000) for batch in batches]
    yield Line("Batch", "sentences in a batch", "ms a sentence", points)


def exactly(encode: Callable[[str], list[int]], words: Sequence[str], length: int) -> str:
    """The beginning of a text that has ``length`` tokens, or, where a word has several, the fewest more."""
    counts = itertools.accumulate(len(encode(word)) - 1 for word in words)  # each is encoded with </s>
    last = next(number for number, count in enumerate(counts) if count + 1 >= length)
    return " ".join(words[: last + 1])


def corpora(precision: str, max_tokens: int, workers: int, quick: bool) -> Iterator[Line]:
    """Time and peak memory of a process that translates a file, against the file's lines."""
    sizes = [100, 300, 1000] if quick else [100, 300, 1000, 3000, 10000]
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory(prefix="fairbeam-scaling-") as folder:
        for size in sizes:
            text = Path(folder, "in")
            text.write_text("".join(f"{line}\n" for line in itertools.islice(itertools.cycle(sentences()), size)))
            command = [sys.executable, __file__, "--translate", text, "--precision", precision,
                       "--max-tokens", max_tokens, "--workers", workers]  # fmt: skip
            with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
                peak = 0
                while process.poll() is None:
                    peak = max(peak, resident(process.pid))
                    time.sleep(0.05)
                assert process.stdout is not None
                if process.returncode:
                    sys.exit(f"translating {size} lines failed")
                seconds.append((size, float(process.stdout.read())))
                peaks.append((size, peak / 2**20))
                print(f"  {size} lines: {seconds[-1][1]:.1f} s, {peaks[-1][1]:.0f} MiB", flush=True)
    yield Line("Corpus", "lines", "seconds", seconds)
    yield Line("Memory", "lines", f"MiB at the most, --max-tokens {max_tokens}", peaks)


def translate(path: Path, precision: str, max_tokens: int, workers: int) -> None:
    """Translate a file to nowhere and print the seconds, loading left out."""
    from fairbeam.files import stream_lines
    from fairbeam.translator import DecodingLimits, load

    model = load(MODEL, precision=precision, workers=workers)
    model.translate(sentences()[:16])
    started = time.perf_counter()
    with path.open("rb") as stream:
        for _ in model.stream(stream_lines(stream, str(path)), limits=DecodingLimits(max_tokens=max_tokens)):
            pass
    print(time.perf_counter() - started)


def resident(process: int) -> int:
    """Bytes of memory of a process and all its children; what they share counts for each that touches it."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, IndexError):  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 240, 58, 28, 42, 46


def drawn(lines: Sequence[Line]) -> str:
    """The picture: a panel with logarithmic axes for each line."""
    panels = [f'<g transform="translate({number * WIDTH} 0)">{panel(line)}</g>' for number, line in enumerate(lines)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(lines)} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n'
    )


def panel(line: Line) -> str:
    """One chart: ticks at powers of two or ten, measured points, and the line fitted to them."""
    xs, ys = zip(*line.points, strict=True)
    x_low, x_high = math.log(min(xs)), math.log(max(xs))
    # Two powers of ten at least, so that what is level looks level.
    middle = (math.log(min(ys)) + math.log(max(ys))) / 2
    half = max(math.log(max(ys)) - middle + 0.2, math.log(10))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - x_low) / (x_high - x_low)
        up = (math.log(y) - middle + half) / (2 * half)
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    ticks = [10.0**power for power in range(-6, 8)]
    ticks = [tick for tick in (*ticks, *(3 * tick for tick in ticks)) if abs(math.log(tick) - middle) <= half]
    heights = [(place(xs[0], tick)[1], tick) for tick in ticks]
    parts = [
        f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:,.10g}</text>'
        for y, tick in heights
    ]
    parts += [
        f'<text x="{place(x, ys[0])[0]}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:,.10g}</text>'
        for x in xs[:: 1 if len(xs) < 7 else 2]
    ]
    intercept = float(np.mean(np.log(ys) - line.slope * np.log(xs)))
    ends = [place(x, math.exp(intercept + line.slope * math.log(x))) for x in (xs[0], xs[-1])]
    parts.append(
        f'<path d="M{ends[0][0]} {ends[0][1]}L{ends[1][0]} {ends[1][1]}" stroke="#b4652a" stroke-width="1.5"/>'
    )
    dots = [place(*point) for point in line.points]
    parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="#1f5fa8"/>' for x, y in dots]
    title = f"{line.title}: slope {line.slope:.2f}"
    return (
        f'<text x="{LEFT}" y="16" font-size="13" font-weight="600">{escape(title)}</text>'
        f'<text x="{LEFT}" y="31">{escape(line.y)}</text>{"".join(parts)}'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(line.x)}</text>'
    )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points, in about a minute")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--max-tokens", type=int, default=2048, help="in a batch, where files are translated")
    parser.add_argument("--workers", type=int, default=1, help="processes that translate files")
    parser.add_argument("--json", type=Path, default=Path("scaling.json"), help="where figures go")
    parser.add_argument("--svg", type=Path, default=ROOT / "docs" / "scaling.svg", help="where the picture goes")
    parser.add_argument("--translate", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (DATA.is_dir() and MODEL.is_file()):
        sys.exit(f"{DATA} or {MODEL} is absent; set FAIRBEAM_DATA and FAIRBEAM_MODELS")
    if args.translate:
        translate(args.translate, args.precision, args.max_tokens, args.workers)
        return
    lines = []
    for line in itertools.chain(
        times(args.precision, args.rounds, args.quick),
        corpora(args.precision, args.max_tokens, args.workers, args.quick),
    ):
        lines.append(line)
        print(f"{line.title}: {line.y} against {line.x}, slope {line.slope:.2f}", flush=True)
        for x, y in line.points:
            print(f"  {x:6} {y:10.2f}")
    args.json.write_text(json.dumps([{**asdict(line), "slope": line.slope} for line in lines], indent=1) + "\n")
    args.svg.write_text(drawn(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
