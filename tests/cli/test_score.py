"""``fairbeam score`` beside the real ``sacrebleu`` command: same line, same bytes."""

import pytest

from fairbeam.cli._options import repeat_flags

REFERENCE = "".join(f"Sentence {n}, about {n * 7} “things” and one größeres Ding.\n" for n in range(40))


@pytest.fixture
def files(tmp_path):
    """A reference, a second one, and two systems."""
    (tmp_path / "ref").write_text(REFERENCE)
    (tmp_path / "ref2").write_text(REFERENCE.replace("about", "on"))
    (tmp_path / "sys1").write_text(REFERENCE.replace("things", "stuff") + "")
    (tmp_path / "sys2").write_text(REFERENCE.replace("one", "a").replace("3", "4"))
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "ref -i sys1 -b -w 2",
        "ref -i sys1 -m bleu chrf ter",
        "ref ref2 -i sys1 -tok intl -lc -m chrf bleu --chrf-word-order 2 -w 4 --format text",
        "ref -i sys1 sys2 -m ter bleu -f text",
        "ref -i sys1 sys2 sys1 --paired-bs --paired-bs-n 50 -q -f text",
        "ref -i sys1 sys2 --paired-ar --paired-ar-n 50 -q -m chrf",
    ],
)
def test_prints_what_sacrebleu_prints(run, files, line):
    ours = run("fairbeam", "score", *line.split(), cwd=files)
    theirs = run("sacrebleu", *line.split(), cwd=files)
    assert ours.stdout == theirs.stdout
    assert ours.stdout.strip()


def test_real_text_from_stdin(run, real_data, files):
    folder = real_data / "multi30k"
    hypotheses = (folder / "test.de").read_text().replace(" ein ", " das ")
    arguments = (folder / "test.de", "-b", "-w", "2", "-m", "bleu", "chrf")
    ours = run("fairbeam", "score", *arguments, input=hypotheses)
    assert ours.stdout == run("sacrebleu", *arguments, input=hypotheses).stdout


def test_tab_separated_references_and_rouge(run, files):
    lines = [
        f"{a}\t{b}" if n % 2 else a
        for n, (a, b) in enumerate(
            zip(*[(files / name).read_text().splitlines() for name in ("ref", "ref2")], strict=True)
        )
    ]
    (files / "tabs").write_text("\n".join(lines) + "\n")
    done = run(
        "fairbeam",
        "score",
        "tabs",
        "--references-tab",
        "-i",
        "ref",
        "-m",
        "rouge",
        "bleu",
        "-f",
        "text",
        cwd=files,
    )
    names = [line.split("|")[0].strip() for line in done.stdout.splitlines()]
    assert names == ["BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert all("|nrefs:var|" in line and " = 100.0" in line for line in done.stdout.splitlines())


def test_bad_input_is_named(run, files):
    (files / "short").write_text("".join(REFERENCE.splitlines(keepends=True)[:39]))
    (files / "latin").write_bytes(REFERENCE.encode("latin-1", errors="ignore"))
    for arguments, expected in [
        (("ref", "-i", "short"), ("ref has 40 lines", "short has 39")),
        (("ref", "-i", "absent"), ("absent: no such file",)),
        (("ref", "-i", "latin"), ("latin, line 1: not valid UTF-8",)),
        (("ref", "-i", "sys1", "--paired-bs"), ("1 system given",)),
        (("ref", "-i", "sys1", "sys1"), ("sys1: given more than once",)),
        (("ref", "-i", "sys1", "-tok", "moses"), ("'moses'", "13a")),
    ]:
        done = run("fairbeam", "score", *arguments, cwd=files, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        for text in expected:
            assert text in done.stderr
    done = run("fairbeam", "score", "ref", cwd=files, check=False, input="one\n")
    assert "ref has 40 lines but standard input has 1" in done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ref -i a b c", "ref -i a -i b -i c"),
        ("-i a b -w 2 ref", "-i a -i b -w 2 ref"),
        ("ref -i a -m x y -b", "ref -i a -m x -m y -b"),
        ("-i a -i b", "-i a -i b"),
        ("ref -i a -- b", "ref -i a -- b"),
        ("ref -i", "ref -i"),
    ],
)
def test_flags_are_repeated(line, expected):
    assert list(repeat_flags(line.split(), {"-i", "-m"})) == expected.split()
