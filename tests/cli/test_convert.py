"""``fairbeam convert`` as a user runs it: pairs, the report, the exit status, and translation with the result."""

from pathlib import Path

import pytest

import fairbeam
from fairbeam.demo.grammar import corpus

ENVIRONMENT = {"PYTHONPATH": str(Path(fairbeam.__file__).parent.parent), "COLUMNS": "200"}
TEXT = "".join(f"{source}\n" for source, _ in corpus(3, seed=3))


@pytest.fixture
def folder(tmp_path) -> Path:
    pytest.importorskip("transformers")
    import hub_folders

    hub_folders.make("m2m_100", tmp_path / "nllb")
    return tmp_path / "nllb"


def fairbeam_command(run, *arguments, **options):
    program = "import sys; from fairbeam.cli import main; sys.argv[0] = 'fairbeam'; main()"
    return run("python", "-c", program, *arguments, env=ENVIRONMENT, **options)


def test_pairs_are_converted_reported_and_translate_the_same(folder, run):
    there, back = folder.parent / "bundle", folder.parent / "back"
    line = ("convert", folder, f"bundle:{there}", there, f"hf:{back}", "--target-lang", "deu_Latn")
    report = fairbeam_command(run, *line).stdout
    for expected in (f"hf:{folder} → bundle:{there}", f"bundle:{there} → hf:{back}", "all 2", "agrees", "passed"):
        assert expected in report
    assert "DIFFERS" not in report
    options = ("--precision", "float32", "--workers", 1)
    outputs = [
        fairbeam_command(run, "translate", model, *options, *languages, input=TEXT).stdout
        for model, languages in ((there, ()), (back, ("-t", "deu_Latn")), (folder, ("-t", "deu_Latn")))
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0].count("\n") == 3
    refused = fairbeam_command(run, *line, check=False)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert fairbeam_command(run, *line, "--overwrite").returncode == 0


def test_a_folder_without_tokenizer_warns_and_a_damaged_one_is_one_line(folder, run):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    done = fairbeam_command(run, "convert", folder, folder.parent / "bundle")
    assert "no tokenizer's files" in " ".join(done.stderr.split())
    assert "no tokenizer" in done.stdout
    (folder / "model.safetensors").write_bytes(b"nothing")
    failed = fairbeam_command(run, "convert", folder, folder.parent / "other", check=False)
    assert failed.returncode == 2
    assert "model.safetensors: not a file of weights, or truncated" in failed.stderr
    assert not (folder.parent / "other").exists()


def test_a_result_that_differs_is_status_1(folder, monkeypatch, capsys):
    import typer

    from fairbeam.cli.convert import command
    from fairbeam.formats import hugging_face, registry

    read = hugging_face.read

    def changed(*arguments, **options):
        model = read(*arguments, **options)
        model.network.head.weight.data[7] += 1
        return model

    monkeypatch.setitem(registry._READERS, registry.Format.HUGGING_FACE, lambda path, files: changed(path))
    monkeypatch.setitem(registry._WRITERS, registry.Format.BUNDLE, lambda path, model, overwrite: None)
    monkeypatch.setitem(registry._READERS, registry.Format.BUNDLE, lambda path, files: read(folder))
    with pytest.raises(typer.Exit) as caught:
        command([f"hf:{folder}", f"bundle:{folder.parent / 'out'}"])
    assert caught.value.exit_code == 1
    assert "FAILED" in capsys.readouterr().out
