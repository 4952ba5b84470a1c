"""Atomic files and folders: the old one or the whole new one, and nothing replaced that is no regular file."""

import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from fairbeam.errors import ConfigError, InputError
from fairbeam.files import atomic_folder, atomic_write, check_replaceable, partial_path


def make_device(path: Path, minor: int = 3) -> Path:
    """A node of our own for the null device (minor 3), or for the one that is always full (7)."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"device nodes cannot be made and opened here: {error}")
    return path


def write(path, content="new", **options):
    with atomic_write(path, **options) as stream:
        stream.writelines([content] if isinstance(content, str | bytes) else content)


def failing_after(text, error):
    yield text
    raise error


def test_files_are_made_with_their_parents_and_replaced_with_their_permissions(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write(path)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o640)
    write(path, b"\xff\r\n", mode="wb")
    assert path.read_bytes() == b"\xff\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    expected, message = (
        (InputError, rf"{path}: cannot be written \(No") if isinstance(error, OSError) else (type(error), None)
    )
    with pytest.raises(expected, match=message):
        write(path, failing_after("half", error))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_of_another_file_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"), atomic_write(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()
    assert os.listdir(tmp_path) == []


def test_links_are_written_through(tmp_path):
    real, link, dangling = tmp_path / "there" / "real", tmp_path / "link", tmp_path / "dangling"
    write(real, "old")
    link.symlink_to("there/real")
    dangling.symlink_to("there/new")
    for path, target in ((link, real), (dangling, tmp_path / "there" / "new")):
        write(path, f"through {path.name}")
        assert path.is_symlink()
        assert target.read_text() == f"through {path.name}"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "link", "there"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"loop: cannot be written \(Too many levels"):
        write(tmp_path / "loop")


def test_pipes_and_links_to_pipes_are_written_to(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        read = []
        reader = threading.Thread(target=lambda read=read: read.append(pipe.read_text()))
        reader.start()
        write(path, "through")
        reader.join()
        assert read == ["through"]
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_devices_are_written_to(tmp_path):
    null, full = make_device(tmp_path / "null"), make_device(tmp_path / "full", minor=7)
    before = null.stat()
    write(null)
    write(null, keep_partial=True)
    with pytest.raises(InputError, match=r"full: cannot be written \(No space left on device\)"):
        write(full)
    assert (null.stat().st_ino, null.stat().st_rdev, null.stat().st_mode) == (
        before.st_ino,
        before.st_rdev,
        before.st_mode,
    )
    assert full.is_char_device()
    assert sorted(os.listdir(tmp_path)) == ["full", "null"]


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_file_of_ours_goes_on_where_it_is(tmp_path, name):
    path = tmp_path / "log"
    with path.open("w") as log:
        log.write("before\n")
        log.flush()
        write(name.format(log.fileno()), "within\n")
        log.write("after\n")
    assert path.read_text() == "before\nwithin\nafter\n"


def test_what_cannot_be_written_is_one_line_that_names_the_path(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "is a folder; expected a file"),
        (tmp_path / "file" / "below", r"cannot be written \(Not a directory\)"),
        (tmp_path / ("n" * 300), r"cannot be written \(File name too long\)"),
    ):
        with pytest.raises(InputError, match=rf"^{path}: {message}"):
            write(path)
    with pytest.raises(InputError, match=rf"{tmp_path}/nowhere/file: cannot be written \(No such file"):
        write(tmp_path / "nowhere" / "file", parents=False)
    assert os.listdir(tmp_path) == ["file"]


def test_partial_files_keep_their_name_on_an_error_and_replace_older_ones_alone(tmp_path):
    path = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(ValueError, match="halfway"):
            write(path, failing_after("half", ValueError("halfway")), keep_partial=True)
        assert partial_path(path).read_text() == "half"
        assert not path.exists()
    write(path, keep_partial=True)
    assert os.listdir(tmp_path) == ["out"]
    partial_path(path).symlink_to("elsewhere")
    with pytest.raises(InputError, match="File exists"):
        write(path, keep_partial=True)
    assert sorted(os.listdir(tmp_path)) == ["out", "out.partial"]


def test_folders_appear_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "parent" / "folder"
    with atomic_folder(folder) as building:
        (building / "a").write_text("1")
        assert not folder.exists()
    with pytest.raises(InputError, match="exists already"), atomic_folder(folder):
        pass
    with pytest.raises(InputError, match=rf"{folder}/b: is a folder"), atomic_folder(folder, replace=True) as building:
        (building / "b").mkdir(), write(building / "b")
    assert [path.name for path in folder.iterdir()] == ["a"]
    with atomic_folder(folder, replace=True) as building:
        write(building / "sub" / "b")
    assert [path.name for path in folder.iterdir()] == ["sub"]
    assert os.listdir(folder.parent) == ["folder"]


def test_a_link_to_a_folder_stays_and_nothing_else_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").touch()
    link, dangling, file = tmp_path / "link", tmp_path / "dangling", tmp_path / "file"
    link.symlink_to("real")
    dangling.symlink_to("nowhere")
    file.touch()
    os.mkfifo(tmp_path / "pipe")
    with atomic_folder(link, replace=True) as building:
        write(building / "new")
    assert link.is_symlink()
    assert os.listdir(tmp_path / "real") == ["new"]
    for path in (dangling, file, tmp_path / "pipe"):
        with pytest.raises(InputError, match="exists already"), atomic_folder(path, replace=True):
            pass
        with pytest.raises(ConfigError, match="--overwrite replaces a model, and nothing else"):
            check_replaceable(path, overwrite=True, kind="a model", is_kind=lambda _: True)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "link", "pipe", "real"]


@pytest.fixture
def read_only_folder():
    """A folder that this process cannot write to, as root neither: it is somebody else for so long."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        os.seteuid(user or 65534)
        yield Path(folder)
        os.seteuid(user)


def test_a_read_only_folder_is_named(read_only_folder):
    for writer in (atomic_write, atomic_folder):
        path = read_only_folder / "new"
        with pytest.raises(InputError, match=rf"^{path}: cannot be written \(Permission denied\)"), writer(path):
            pass
