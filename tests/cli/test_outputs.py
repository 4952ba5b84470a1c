"""No command replaces a device, a pipe or a link by a regular file or a folder of its own."""

import os
import stat
import sys
import threading

import pytest
import torch

from fairbeam.cli import main
from fairbeam.data.indexed import IndexedWriter
from fairbeam.formats import bundle
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.model import Bundle
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, PositionConfig, StackConfig
from fairbeam.text import Dictionary, Tokenizer, Whitespace

FILES = {
    "report": "report {out} --source {in}/src --reference {in}/src --hypotheses {in}/src",
    "average": "average {out} {in}/model.pt",
    "average --output": "average --inputs {in}/model.pt --output {out}",
    "shortlist": "shortlist {in} {out}",
    "translate": "translate {in}/model -i {in}/src -o {out} --precision float32 --workers 1 --quiet",
}
FOLDERS = {
    "prepare": "prepare {in} aa bb {out} --overwrite",
    "demo-corpus": "demo-corpus {out} --train 1 --valid 1 --test 1",
    "compose": "compose {out} --encoder {in}/model --decoder {in}/model --overwrite",
    "convert": "convert {in}/model {out} --overwrite",
    "convert, fairseq": "convert {in}/model fairseq:{out} --overwrite",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A source text, a binarised pair of languages, a checkpoint and a bundle, all tiny."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "src").write_text("w1 w2\n")
    dictionary = Dictionary((f"w{i}", 1) for i in range(8))
    for side in ("aa", "bb"):
        dictionary.save(folder / f"dict.{side}.txt")
        with IndexedWriter(folder / f"train.aa-bb.{side}", len(dictionary)) as writer:
            writer.add([4, 5, 2])
    checkpoint.write(folder / "model.pt", {"model": {"w": torch.ones(2)}})
    stack = StackConfig(layers=1, dim=8, heads=2, ffn_dim=8, positions=PositionConfig(max_positions=30))
    size = len(dictionary)
    config = EncoderDecoderConfig(source_vocabulary=size, target_vocabulary=size, encoder=stack, decoder=stack)
    sides = [Tokenizer(language=side, subwords=Whitespace(), dictionary=dictionary) for side in ("aa", "bb")]
    bundle.save(folder / "model", Bundle(network=EncoderDecoder(config).eval(), source=sides[0], target=sides[1]))
    return folder


@pytest.fixture
def fairbeam(inputs, monkeypatch):
    """Run a command line; returns its exit status."""

    def run(line: str, out) -> int:
        monkeypatch.setattr(sys, "argv", ["fairbeam", *line.format(**{"in": inputs, "out": out}).split()])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0

    return run


@pytest.mark.parametrize("command", FILES)
def test_files_are_written_to_a_pipe_a_device_and_through_links(fairbeam, tmp_path, command):
    pipe, link, real = tmp_path / "pipe", tmp_path / "link", tmp_path / "real"
    os.mkfifo(pipe)
    real.write_text("old")
    link.symlink_to(real)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert fairbeam(FILES[command], pipe) == 0
    reader.join()
    assert read[0]
    assert pipe.is_fifo()
    assert fairbeam(FILES[command], link) == 0
    assert link.is_symlink()
    assert real.read_bytes() not in (b"old", b"")
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "real"]
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (tmp_path / "null").open("wb").close()
    except OSError as error:
        pytest.skip(f"device nodes cannot be made and opened here: {error}")
    assert fairbeam(FILES[command], tmp_path / "null") == 0
    assert (tmp_path / "null").is_char_device()
    assert sorted(os.listdir(tmp_path)) == ["link", "null", "pipe", "real"]


@pytest.mark.parametrize("command", FOLDERS)
def test_folders_take_the_place_of_no_file_pipe_or_device(fairbeam, tmp_path, command, capsys):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for place in (pipe, link):
        assert fairbeam(FOLDERS[command], place) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]
