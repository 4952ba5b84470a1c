"""The report: what is read from logs, what is drawn, and that nothing in it can do harm."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.errors import InputError
from fairbeam.report import (
    Attention,
    CurvePoint,
    Report,
    Sample,
    read_attention,
    read_training_log,
    render_report,
    write_report,
)
from fairbeam.report.chart import heat_map, line_chart, nice_ticks
from fairbeam.report.page import marked_words
from fairbeam.scoring import bleu

JSON_LOG = """\
{'_name': None, 'common': {'log_format': 'json'}}
2026-01-05 | INFO | train_inner | {"epoch": 1, "update": 0.4, "loss": "11.1", "num_updates": "3"}
2026-01-05 | INFO | fairseq_cli.train | begin validation on "valid" subset
2026-01-05 | INFO | valid | {"epoch": 1, "valid_loss": "9.4", "valid_bleu": "3.2", "valid_num_updates": "7"}
2026-01-05 | INFO | valid1 | {"epoch": 1, "valid1_loss": "1.5", "valid1_num_updates": "7"}
2026-01-05 | INFO | train | {"epoch": 1, "train_loss": "10.6", "train_num_updates": "7", "train_lr": "0.1"}
{"epoch": 2, "update": 1.3, "loss": "nan", "num_updates": "9"}
{"epoch": 2, "update": 1.7, "loss": "8.7", "num_updates": "12"}
{"epoch": 2, "valid_loss": "8.5", "valid_bleu": "5.1", "valid_num_updates": "14", "valid_best_loss": "8.5"}
{"epoch": 2, "train_loss": "9.1", "train_num_up"""

SIMPLE_LOG = """\
epoch 001:   0%|     | 0/7\r2026-01-05 | INFO | train_inner | epoch 001:      3 / 7 \
loss=11.1, ppl=2253.14, wps=18724.6, num_updates=3, lr=0.005
2026-01-05 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 9.4 | bleu 3.2 | num_updates 7
2026-01-05 | INFO | valid1 | epoch 001 | valid on 'valid1' subset | loss 1.5 | num_updates 7
epoch 001 | loss 10.6 | ppl 1625.91 | wps 16852.4 | num_updates 7 | lr 0.005
epoch 002:      5 / 7 loss=8.7, ppl=588.9, num_updates=12, lr=0.005
epoch 002 | valid on 'valid' subset | loss 8.5 | ppl 379.45 | bleu 5.1 | num_updates 14 | best_loss 8.5
done training in 0.9 seconds
"""

CURVE = [
    CurvePoint(update=3, train_loss=11.1),
    CurvePoint(update=7, valid_loss=9.4, valid_bleu=3.2),
    CurvePoint(update=12, train_loss=8.7),
    CurvePoint(update=14, valid_loss=8.5, valid_bleu=5.1),
]

HOSTILE = """</style></title><script>alert('1')</script><img src=x onerror="alert(2)">&amp;"'>"""


@pytest.mark.parametrize("log", [JSON_LOG, SIMPLE_LOG], ids=["json", "simple"])
def test_reads_the_curve(tmp_path, log):
    path = tmp_path / "train.log"
    path.write_text(log, newline="")
    assert read_training_log(path) == CURVE
    assert read_training_log(path, valid_subset="valid1")[1] == CurvePoint(update=7, valid_loss=1.5)


def test_epoch_averages_stand_in_where_nothing_finer_was_logged(tmp_path):
    path = tmp_path / "train.log"
    line = '{{"epoch": 1, "train_loss": "{}", "train_num_updates": "{}"}}\n'
    path.write_text(line.format(6.0, 20) + line.format(9.9, 10) + line.format(7.0, 10))
    # The run was resumed at update 10, so that update appears again with another value.
    assert read_training_log(path) == [
        CurvePoint(update=10, train_loss=7.0),
        CurvePoint(update=20, train_loss=6.0),
    ]


def test_a_log_without_statistics_is_refused(tmp_path):
    path = tmp_path / "other.log"
    path.write_text("epoch 1 was fine\n")
    with pytest.raises(InputError, match=r"other\.log: no training statistics"):
        read_training_log(path)


class Page(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data):
        self.text += data


def full_report(text: str) -> Report:
    attention = Attention(source=[text, "猫"], target=[text], weights=[[0.25, 0.75]])
    return Report(
        title=text,
        points=CURVE,
        scores=[bleu([text], [text])],
        samples=[Sample(source=text, references=(text, text), hypothesis=text, attention=attention)],
        facts={"date": text, text: text},
    )


def test_hostile_text_stays_text():
    tame, hostile = Page(render_report(full_report("tame"))), Page(render_report(full_report(HOSTILE)))
    assert set(hostile.tags) <= set(tame.tags) | {"mark"}
    assert "script" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert hostile.text.count("alert('1')") >= 5


def test_nothing_is_fetched_and_everything_is_shown():
    html = render_report(full_report("Ein Satz mit fünf Wörtern"))
    page = Page(html)
    assert not {"src", "href", "xlink:href", "srcset", "data"} & {name for name, _ in page.attributes}
    assert not re.findall(r"://|url\(|@import", html)
    assert "script" not in page.tags
    assert page.tags.count("svg") == 3  # loss, BLEU, attention
    assert "nrefs:1|case:mixed" in page.text
    assert "猫: 0.75" in page.text
    assert "prefers-color-scheme: dark" in html


def test_an_empty_report_has_no_sections(tmp_path):
    write_report(tmp_path / "deep" / "report.html", Report(title="Nothing yet"))
    page = Page((tmp_path / "deep" / "report.html").read_text(encoding="utf-8"))
    assert "h2" not in page.tags
    assert "Nothing yet" in page.text


def test_half_a_surrogate_pair_can_be_written(tmp_path):
    write_report(tmp_path / "report.html", Report(title="odd \ud83d"))
    assert "odd ?" in (tmp_path / "report.html").read_text(encoding="utf-8")


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_range_evenly(low, span):
    ticks = nice_ticks(low, low + span)
    steps = [b - a for a, b in pairwise(ticks)]
    slack = 1e-6 * max(abs(low), span, 1)
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert max(steps) - min(steps) <= slack


def test_points_are_placed_to_scale():
    chart = line_chart("Loss", {"training": [(0, 10.0), (50, 5.0), (100, 0.0)]})
    (line,) = chart.lines
    first, middle, last = line.marks
    assert (first.x, last.x) == (chart.left, chart.right)
    assert (first.y, last.y) == (chart.top, chart.bottom)
    assert (middle.x, middle.y) == ((chart.left + chart.right) / 2, (chart.top + chart.bottom) / 2)


def test_one_point_alone_can_be_drawn():
    assert len(line_chart("BLEU", {"validation": [(7, 0.0)]}).lines[0].marks) == 1


def test_heat_map_has_a_cell_per_visible_weight():
    attention = Attention(source="abc", target="xy", weights=[[0.5, 0.25, 0.0], [0.0, 0.001, 0.5]])
    drawn = heat_map(attention)
    assert [(cell.label[0], cell.label[4], cell.strength) for cell in drawn.cells] == [
        ("x", "a", 1.0),
        ("x", "b", 0.5),
        ("y", "c", 1.0),
    ]
    columns = {label.full: label.position - drawn.cell / 2 for label in drawn.columns}
    assert drawn.cells[2].x == pytest.approx(columns["c"], abs=0.1)
    assert heat_map(Attention(source="ab", target="x", weights=[[0.0, 0.0]])).cells == []


def test_words_the_references_lack_are_marked():
    assert marked_words("Ein Hund, rennt.", ["Der Hund rennt", "Ein Tier"]) == [
        ("Ein", True),
        ("Hund,", True),
        ("rennt.", True),
    ]
    assert marked_words("Die Katze", ["Die Hunde"]) == [("Die", True), ("Katze", False)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"source": ["a"], "target": ["b"]}, "KeyError: 'weights'"),
        ({"source": ["a"], "target": ["b"], "weights": [[1, 2]]}, "1 rows of"),
        ({"source": ["a"], "target": ["b"], "weights": [[-1]]}, "weight -1.0"),
        ({"source": ["a"], "target": ["b"], "weights": [[float("nan")]]}, "weight nan"),
        (["a"], "TypeError"),
    ],
)
def test_bad_attention_names_file_and_entry(tmp_path, entry, message):
    path = tmp_path / "attention.json"
    good = {"source": ["a"], "target": ["b"], "weights": [[1]]}
    path.write_text(json.dumps([good, entry]))
    with pytest.raises(InputError, match=rf"attention\.json, entry 2: .*{message}"):
        read_attention(path)
    path.write_text('[{"source"')
    with pytest.raises(InputError, match="not valid JSON"):
        read_attention(path)


def test_the_command_writes_a_page(run, tmp_path):
    (tmp_path / "train.log").write_text(JSON_LOG)
    (tmp_path / "ref").write_text("Ein Satz.\nNoch einer hier.\n")
    (tmp_path / "hyp").write_text("Ein Satz.\nNoch keiner hier.\n")
    attention = [{"source": ["a", "sentence"], "target": ["Satz"], "weights": [[0.1, 0.9]]}]
    (tmp_path / "attention.json").write_text(json.dumps(attention))
    arguments = ["--hypotheses", "hyp", "--reference", "ref", "--attention", "attention.json"]
    done = run("fairbeam", "report", "out/report.html", "--log", "train.log", *arguments, cwd=tmp_path)
    assert done.stdout.strip() == "out/report.html"
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 3
    assert "keiner" in page.text
    done = run("fairbeam", "report", "out.html", "--hypotheses", "hyp", cwd=tmp_path, check=False)
    assert (done.returncode, "--reference" in done.stderr) == (2, True)
