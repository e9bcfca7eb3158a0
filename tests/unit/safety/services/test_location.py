"""Where durable state lives: what is taken as a database, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from breaker_world import FakeClock
from sqlalchemy.ext.asyncio import create_async_engine

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services import location
from tinywindow.safety.services.location import default_data_dir, locate


def test_a_path_a_url_and_an_engine_name_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "tinywindow.db"
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    forms = [file, f"sqlite:///{file}", f"sqlite+aiosqlite:///{file}", engine]
    found = {locate(form) for form in forms}
    assert len(found) == 1
    (one,) = found
    assert (one.sqlite_path, one.data_dir) == (file, tmp_path)
    assert one.wall is None


def test_one_file_reached_by_two_ways_is_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "inner")
    monkeypatch.chdir(tmp_path)
    ways = [Path("inner/a.db"), tmp_path / "link" / "a.db", "sqlite:///inner/../inner/a.db"]
    assert len({locate(way).url for way in ways}) == 1
    assert locate(Path("inner/a.db")).data_dir.is_absolute()


def test_the_working_directory_does_not_move_where_a_stop_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate(Path("a.db"), data_dir=Path("data")).data_dir == tmp_path / "data"


def test_the_data_directory_is_given_configured_or_the_databases_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a" / "tinywindow.db"
    assert locate(file).data_dir == tmp_path / "a"
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path / "b"))
    assert locate(file).data_dir == tmp_path / "b"
    assert locate(file, data_dir=tmp_path / "c").data_dir == tmp_path / "c"


def test_the_commands_directory_is_below_the_users_home_unless_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_data_dir() == tmp_path / "home" / ".local/share/tinywindow"
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", "~/elsewhere")
    assert default_data_dir() == tmp_path / "home" / "elsewhere"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "without durable state"),
        (":memory:", "must be an AsyncEngine"),
        (Path(":memory:"), "in-memory"),
        ("sqlite://", "in-memory"),
        ("sqlite:///", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", "in-memory"),
        (Path("file:x?mode=memory"), "in-memory"),
        ("sqlite:///a.db?mode=ro", "read-only"),
        ("sqlite:///a.db?immutable=1", "read-only"),
        ("sqlite:a.db", "must be an AsyncEngine"),
        ("sqlite://host/a.db", "three slashes"),
        ("mysql://host/a", "must be an AsyncEngine"),
        ("a.db", "must be an AsyncEngine"),
        (7, "not a int"),
        (object(), "not a object"),
    ],
)
def test_what_is_no_durable_database_is_refused(given: object, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        locate(given)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        locate(tmp_path)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(location, "_file_system_of", lambda _: kind)
    with pytest.raises(ConfigurationError, match=f"network file system .{kind}."):
        locate(tmp_path / "a.db")


def test_the_file_system_is_that_of_the_innermost_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /mnt/my\\040disk rw shared:1 - nfs4 host:/x rw\n"
        "3 2 8:3 / /mnt/my\\040disk/local rw - xfs /dev/b rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_: lines)
    assert location._file_system_of(Path("/mnt/my disk/here")) == "nfs4"
    assert location._file_system_of(Path("/mnt/my disk/local/x")) == "xfs"
    assert location._file_system_of(Path("/mnt/my diskette")) == "ext4"


def test_where_mounts_cannot_be_read_the_file_system_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", gone)
    assert location._file_system_of(Path("/somewhere")) == ""


def test_a_location_may_carry_the_wall_clock_of_a_replay(tmp_path: Path) -> None:
    from dataclasses import replace

    clock = FakeClock()
    assert replace(locate(tmp_path / "a.db"), wall=clock).wall is clock
