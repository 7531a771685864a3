"""The shared blob store: as a folder, and as S3 over HTTP; what is fetched, what is refused, and an outage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from node import doctor
from node.blobs import BlobStore, sync_file
from node.config import Settings
from node.doctor import Check
from node.errors import BlobAbsent, BlobDamaged, BlobStoreUnavailable, ConfigError, DiskFull
from node.remote import Remote
from tests.conftest import make_settings
from tests.support.command import assert_one_line, environment, tomonode
from tests.support.s3_server import BUCKET, s3_server

CONTENT = b"an object as it was received" * 1000


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder that all hosts see."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def s3(monkeypatch_module: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a bucket; credentials and address are in the environment, as on a host."""
    with s3_server() as address:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "the-key",
            "AWS_SECRET_ACCESS_KEY": "the-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch_module.setenv(name, value)
        yield f"s3://{BUCKET}/a/prefix"


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    """Undone after the last test of the module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def host(folder: Path, url: str) -> BlobStore:
    """The store of one host."""
    return BlobStore.of(make_settings(folder, blob_url=url))


def receive(store: BlobStore, content: bytes) -> str:
    """Keep an object as the listener does."""
    spooled = store.spool / uuid.uuid4().hex
    spooled.write_bytes(content)
    sync_file(spooled)
    digest = sha256(content).hexdigest()
    with store.hold(spooled, digest):
        pass
    spooled.unlink()
    return digest


def in_store(url: str, digest: str) -> str:
    """Where a blob lies in the store."""
    return f"{url.removeprefix('file://')}/{digest[:2]}/{digest[2:4]}/{digest}"


def checked(settings: Settings) -> Check:
    """What the doctor says of the store."""
    return next(one for one in doctor.examine(settings) if one.name == "blob store")


def the_way_of_a_blob(url: str, folder: Path) -> str:
    """From one host to another, by the listener's copy and by a worker's; returns the digest."""
    here, there = host(folder / "a", url), host(folder / "b", url)
    digest = receive(here, CONTENT)
    assert [link.name for link in here.outgoing()] == [digest]
    with pytest.raises(BlobStoreUnavailable, match="holds nothing of a node"):
        there.fetch(digest)  # whatever it is, it is not yet a node's store
    made = here.write(b"a report")
    assert there.fetch(made).read_bytes() == b"a report"
    with pytest.raises(BlobAbsent, match=f"blob {digest[:12]} is neither on this host nor in"):
        there.fetch(digest)
    assert here.copy_out() == 1
    assert here.outgoing() == []
    assert here.copy_out() == 0
    copy = there.fetch(digest)
    assert copy.read_bytes() == CONTENT
    assert there.fetch(digest) == copy
    assert not there.path(digest).exists(), "a copy is not this host's own"
    assert here.fetch(digest) == here.path(digest)
    assert not list(there.spool.iterdir())
    assert here.remote is not None
    assert not here.remote.put(here.path(digest), digest), "the same again is not sent"
    return digest


def test_a_blob_goes_from_host_to_host_by_a_folder(shared: Path, tmp_path: Path) -> None:
    digest = the_way_of_a_blob(shared.as_uri(), tmp_path)
    assert (shared / digest[:2] / digest[2:4] / digest).read_bytes() == CONTENT
    assert not list(shared.rglob("*.partial"))
    check = checked(make_settings(tmp_path / "b", blob_url=shared.as_uri()))
    assert check.ok, check
    assert sorted(path.name[:5] for path in shared.glob("[!0-9a-f]*")) == ["TOMON"]


def test_the_doctor_leaves_nothing_in_a_folder_that_is_not_a_nodes(
    shared: Path, tmp_path: Path
) -> None:
    assert checked(make_settings(tmp_path, blob_url=shared.as_uri())).ok
    assert not list(shared.iterdir())


@pytest.mark.system
def test_a_blob_goes_from_host_to_host_by_s3(s3: str, tmp_path: Path) -> None:
    digest = the_way_of_a_blob(s3, tmp_path)
    check = checked(make_settings(tmp_path / "b", blob_url=s3))
    assert check.ok, check
    # a multipart upload, beyond what one request may hold
    large = os.urandom(2**20) * 110
    here, there = host(tmp_path / "a", s3), host(tmp_path / "c", s3)
    assert there.fetch(here.write(large)).stat().st_size == len(large)
    remote = here.remote
    assert remote is not None
    remote._fs.pipe_file(in_store(s3, digest), CONTENT[:-1] + b"!")
    with pytest.raises(BlobDamaged, match=f"blob {digest[:12]} is damaged in {s3}"):
        there.fetch(digest)


@pytest.mark.system
def test_s3_down_and_up_again(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        S3FileSystem.clear_instance_cache()  # a process has one client, made for its address
        url = f"s3://{BUCKET}/down-and-up"
        settings = make_settings(tmp_path / "a", blob_url=url)
        here = BlobStore.of(settings)
        first = here.write(b"first")
    digest = receive(here, CONTENT)  # the listener does not notice
    with pytest.raises(BlobStoreUnavailable, match="Could not connect"):
        here.copy_out()
    assert [link.name for link in here.outgoing()] == [digest]
    check = checked(settings)
    assert not check.ok
    assert "the-key" not in f"{check}"
    assert "the-secret" not in f"{check}"
    with s3_server(int(address.rpartition(":")[2])):
        assert here.copy_out() == 1
        there = host(tmp_path / "b", url)
        assert there.fetch(digest).read_bytes() == CONTENT
        with pytest.raises(BlobAbsent):
            there.fetch(first)  # the server forgot it
        assert here.write(b"first") == first  # and here it comes again
        assert there.fetch(first).read_bytes() == b"first"


@pytest.mark.system
def test_a_bucket_that_is_not_there_is_said_and_not_taken_for_a_lost_blob(
    s3: str, tmp_path: Path
) -> None:
    there = host(tmp_path / "b", "s3://another-bucket")
    with pytest.raises(BlobStoreUnavailable) as found:
        there.fetch("0" * 64)
    assert not isinstance(found.value, BlobAbsent)
    check = checked(make_settings(tmp_path / "b", blob_url="s3://another-bucket"))
    assert (check.ok, "s3://another-bucket" in check.found) == (False, True)


def test_a_damaged_object_is_refused_and_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    here, there = (host(tmp_path / name, shared.as_uri()) for name in "ab")
    digest = here.write(CONTENT)
    Path(in_store(shared.as_uri(), digest)).write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(BlobDamaged, match="remove it there, then run `tomonode blob copy`"):
        there.fetch(digest)
    assert not [p for p in there.root.rglob("*") if p.is_file()]
    Path(in_store(shared.as_uri(), digest)).write_bytes(CONTENT[:100])  # cut short: sent again
    assert here.write(CONTENT) == digest
    assert there.fetch(digest).read_bytes() == CONTENT


def test_a_folder_that_is_not_mounted_is_an_outage(shared: Path, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "a", blob_url=shared.as_uri())
    here, there = BlobStore.of(settings), host(tmp_path / "b", shared.as_uri())
    shared.rename(tmp_path / "away")
    digest = receive(here, CONTENT)
    for use in (here.copy_out, lambda: there.fetch(digest), lambda: here.write(b"a report")):
        with pytest.raises(BlobStoreUnavailable) as found:
            use()
        assert not isinstance(found.value, BlobAbsent)
    assert not shared.exists(), "nothing may be written below a missing mount"
    assert not checked(settings).ok
    (tmp_path / "away").rename(shared)
    assert here.copy_out() == 1
    assert there.fetch(digest).read_bytes() == CONTENT


def test_what_was_refused_is_not_copied(shared: Path, tmp_path: Path) -> None:
    here = host(tmp_path / "a", shared.as_uri())
    spooled = here.spool / "arriving"
    spooled.write_bytes(CONTENT)
    digest = sha256(CONTENT).hexdigest()
    with pytest.raises(ValueError, match="no row"), here.hold(spooled, digest):
        raise ValueError("no row")
    assert here.outgoing() == []
    assert not here.path(digest).exists()
    receive(here, CONTENT)
    with pytest.raises(ValueError, match="no row"), here.hold(spooled, digest):
        raise ValueError("no row")
    assert [link.name for link in here.outgoing()] == [digest], "the earlier one still waits"


def test_copies_unused_for_longest_make_room_and_the_reserve_stays(
    shared: Path, tmp_path: Path
) -> None:
    here, there = (host(tmp_path / name, shared.as_uri()) for name in "ab")
    own = there.write(b"of this host")
    old, fresh, wanted = (here.write(content) for content in (b"old", b"fresh", b"wanted"))
    copies = [there.fetch(old), there.fetch(fresh)]
    long_ago = time.time() - 7200
    os.utime(copies[0], (long_ago, long_ago))
    full = BlobStore(there.root, there.spool, there.remote, reserve_bytes=2**62)
    with pytest.raises(DiskFull, match="the reserve is"):
        full.fetch(wanted)
    assert [path.exists() for path in copies] == [False, True]
    assert there.path(own).exists()
    assert there.fetch(old).read_bytes() == b"old"


def test_a_url_that_cannot_be_one_is_one_line_without_its_secrets() -> None:
    with pytest.raises(ConfigError, match="holds credentials") as found:
        Remote("s3://AKIAKEY:hush@bucket/prefix")
    assert "hush" not in f"{found.value}"
    with pytest.raises(ConfigError, match="is no URL; give s3://bucket/prefix"):
        Remote("/mnt/shared")
    with pytest.raises(ConfigError, match="there is no such store"):
        Remote("s4://bucket")


def test_without_its_package_the_line_to_install_it_is_said() -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from node.remote import Remote\n"
        "from node.errors import ConfigError\n"
        "try:\n    Remote('s3://bucket')\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        "blob store s3://bucket needs a package that is not installed; run"
        f" `{sys.executable} -m pip install s3fs`\n"
    )


def test_a_node_that_ran_alone_copies_what_it_has(shared: Path, tmp_path: Path) -> None:
    alone = BlobStore.of(make_settings(tmp_path / "a"))
    digests = {alone.write(content) for content in (b"one", b"two")}
    env = environment(tmp_path / "a")
    assert_one_line(tomonode("blob", "copy", env=env), 2, "set TOMONODE_BLOB_URL")
    env["TOMONODE_BLOB_URL"] = shared.as_uri()
    done = tomonode("blob", "copy", "--json", env=env)
    assert '"copied": 2' in done.stdout, done.stderr
    there = host(tmp_path / "b", shared.as_uri())
    assert {there.fetch(digest).name for digest in digests} == digests
