"""Official files: missing, damaged, of other contents, hostile, downloaded."""

import http.server
import os
import pickle
import shutil
import threading

import numpy as np
import pytest

from tests.data_files import GLYPH, small, write_freyfaces, write_omniglot
from vamp_jax import datasets
from vamp_jax.datasets import files, protocols, sequences
from vamp_jax.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_network", "own_cache")


def test_unknown_name():
    with pytest.raises(
        UsageError, match="no data set 'mnist': choose one of static_mnist, dynamic"
    ):
        datasets.load("mnist")


SOURCES = {name: spec.sources for name, spec in protocols.SPECS.items()} | sequences.SOURCES


@pytest.mark.parametrize("name", [name for name in datasets.NAMES if SOURCES[name]])
def test_missing_file(tmp_path, name):
    folder = tmp_path / "absent"
    with pytest.raises(UsageError) as caught:
        datasets.load(name, str(folder))
    message, source = str(caught.value), SOURCES[name][0]
    for part in (name, source.name, str(folder), source.urls[0], "--data_dir", "no network"):
        assert part in message
    assert "\n" not in message and not folder.exists()


def test_data_dir_must_be_a_folder_or_a_bucket(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a local folder: pass --data_dir"):
        datasets.load("digits", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="of a kind that cannot be used"):
        datasets.load("digits", "ftp://server/data")


@pytest.mark.parametrize("damage", ["empty", "short", "long", "other bytes"])
def test_pinned_files(tmp_path, damage):
    source = protocols.SPECS["caltech101_silhouettes"].sources[0]
    size = {"empty": 0, "short": 1000, "long": source.size + 1, "other bytes": source.size}[damage]
    (tmp_path / source.name).write_bytes(bytes(size))
    with pytest.raises(
        UsageError, match="caltech101_silhouettes_28_split1.mat (holds|has SHA-256)"
    ):
        datasets.load("caltech101_silhouettes", str(tmp_path))


def test_wrong_number_of_images(tmp_path, monkeypatch):
    write_freyfaces(tmp_path, num=1960)
    with pytest.raises(UsageError, match="in .*freyfaces.pkl holds 1960 images instead of 1965"):
        datasets.load("freyfaces", str(tmp_path))
    write_omniglot(tmp_path, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"data of shape \(784, 30\) instead of \(784, 24345\)"):
        datasets.load("omniglot", str(tmp_path))
    small(monkeypatch, "omniglot", (23, 7, 10))
    write_omniglot(tmp_path, np.random.default_rng(0), glyph=2 * GLYPH)
    with pytest.raises(UsageError, match=r"pixels outside \[0, 1\]"):
        datasets.load("omniglot", str(tmp_path))


def write_histopathology(folder, change):
    """Images that `change` spoils, in the official layout; (training, validation, test)."""
    images = np.random.default_rng(0).uniform(0, 1, (600, 784))
    images = change(images)
    parts = dict(zip(("training", "validation", "test"), np.split(images, (200, 400)), strict=True))
    (folder / "histopathology.pkl").write_bytes(pickle.dumps(parts, protocol=2))


@pytest.mark.parametrize(
    "change, says",
    [
        (np.zeros_like, "holds 200 images of one colour"),
        (np.ones_like, "holds 200 images of one colour"),
        (lambda a: np.concatenate([a[:390], np.zeros((210, 784))]), "10 images of one colour"),
        (lambda a: 0.4 + 0.1 * a, "uses little of the range of its pixels (0.40 to 0.50)"),
        (lambda a: a**200, "is nearly all black or white"),
        (lambda a: np.where(a > 0.9999, a, 0.3 + 0.01 * a), "holds images without contrast"),
        (lambda a: np.tile(a[:60], (10, 1)), "holds only 60 different images among 200"),
    ],
)
def test_contents_of_files_without_a_known_hash(monkeypatch, tmp_path, change, says):
    small(monkeypatch, "histopathology", (200, 200, 200))
    write_histopathology(tmp_path, change)
    with pytest.raises(UsageError) as caught:
        datasets.load("histopathology", str(tmp_path))
    assert says in str(caught.value) and "histopathology.pkl (" in str(caught.value)


def test_black_faces_and_drawings_are_refused(monkeypatch, tmp_path):
    with open(tmp_path / "freyfaces.pkl", "wb") as file:
        pickle.dump([np.zeros((1965, 560), np.uint8)], file, protocol=2)
    with pytest.raises(UsageError, match="freyfaces.pkl holds 1965 images of one colour"):
        datasets.load("freyfaces", str(tmp_path))
    small(monkeypatch, "omniglot", (23, 7, 10))
    write_omniglot(tmp_path, np.random.default_rng(0), glyph=0 * GLYPH)
    with pytest.raises(UsageError, match="chardata.mat .data. holds 30 images of one colour"):
        datasets.load("omniglot", str(tmp_path))


def test_two_files_of_one_name_are_said(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    write_freyfaces(tmp_path, seed=0)
    write_freyfaces(tmp_path / "a", seed=1)
    datasets.load("freyfaces", str(tmp_path))
    said = f"freyfaces: {tmp_path}/freyfaces.pkl is taken, and {tmp_path}/a/freyfaces.pkl is not.\n"
    assert capsys.readouterr().out == said
    (tmp_path / "a" / "freyfaces.pkl").unlink()
    (tmp_path / "a" / "freyfaces.pkl").symlink_to(tmp_path / "freyfaces.pkl")  # the same
    datasets.load("freyfaces", str(tmp_path))
    assert capsys.readouterr().out == ""


def test_a_named_pipe_for_an_official_file_is_refused(tmp_path):
    source = protocols.SPECS["freyfaces"].sources[0]
    os.mkfifo(tmp_path / source.name)
    with pytest.raises(UsageError, match="is a named pipe"):
        files.read(source, tmp_path / source.name)
    with pytest.raises(UsageError, match="freyfaces needs the file freyfaces.pkl"):
        datasets.load("freyfaces", str(tmp_path))


def test_gzip_bomb(tmp_path):
    import gzip

    source = files.Source("bomb", (), max_bytes=1000, size=1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(UsageError, match="more than 1000 bytes instead of 1000"):
        files.read(source, path)
    path.write_bytes(gzip.compress(bytes(1000))[:-4])
    with pytest.raises(UsageError, match="cannot be read"):
        files.read(source, path)


# Downloads, from a server on this machine


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.undo()  # urlopen works again ...
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_download(server, tmp_path, monkeypatch):
    folder, address = server
    images = write_freyfaces(folder)
    spec = protocols.SPECS["freyfaces"]
    urls = (f"{address}/absent/freyfaces.pkl", f"{address}/freyfaces.pkl")
    source = spec.sources[0]._replace(urls=urls)
    monkeypatch.setitem(protocols.SPECS, "freyfaces", spec._replace(sources=(source,)))
    data_dir = tmp_path / "data"
    data = datasets.load("freyfaces", str(data_dir))
    order = np.random.RandomState(0).permutation(1965)
    np.testing.assert_array_equal(data.train.reshape(-1, 560), images[order[:1565]])
    assert os.listdir(data_dir / "downloads" / "manual") == ["freyfaces.pkl"]

    shutil.rmtree(data_dir)
    wrong = source._replace(urls=urls[1:], sha256="0" * 64)
    monkeypatch.setitem(protocols.SPECS, "freyfaces", spec._replace(sources=(wrong,)))
    with pytest.raises(UsageError, match="could not be downloaded from .*SHA-256"):
        datasets.load("freyfaces", str(data_dir))
    assert os.listdir(data_dir / "downloads" / "manual") == []
