"""A corpus from its source to tokens: nothing lost, nothing half written, little memory."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.common import corpus, sources

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"
TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind — é😀\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADDGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ADDGPT_DATA", raising=False)
    corpus._load.cache_clear()


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def afresh(name) -> corpus.Corpus:
    """The corpus as another process would load it."""
    corpus._load.cache_clear()
    return corpus.load(str(name))


def read(found: corpus.Corpus) -> str:
    """A corpus's text, one character at a time."""
    return "".join(found.alphabet[token] for token in found.tokens)


def cached(tmp_path) -> list[Path]:
    """The encoded corpora in the cache, and whatever else was left there."""
    return [f for f in (tmp_path / "cache").rglob("*") if f.is_file() and f.suffix != ".lock"]


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(1, 9))
def test_encoding_and_decoding_give_the_text_back_whatever_the_chunks(tmp_path_factory, text, size):
    folder = tmp_path_factory.mktemp("any")
    (folder / "in.txt").write_bytes(text.encode())
    pieces = list(corpus.texts([folder / "in.txt"], chunk=size))
    text = text.removeprefix("\ufeff")
    assert "".join(pieces) == text
    alphabet, kind = corpus.encode(pieces, folder / "out")
    tokens = np.fromfile(folder / "out", kind)
    assert alphabet == "".join(sorted(set(text)))
    assert "".join(alphabet[token] for token in tokens) == text


@pytest.mark.parametrize("symbols", [256, 257, 5000])
def test_tokens_are_as_small_as_the_alphabet_allows(tmp_path, symbols):
    chars = [chr(0x4E00 + i) for i in range(symbols)]
    text = "".join(np.random.default_rng(0).permutation(chars * 3))
    (tmp_path / "in.txt").write_text(text, encoding="utf-8")
    found = corpus.load(str(tmp_path / "in.txt"))
    assert found.tokens.dtype == (np.uint8 if symbols <= 256 else np.uint16)
    assert found.alphabet == "".join(chars) and read(found) == text == found.decode(found.tokens)
    pieces = (text[i : i + 100] for i in range(0, len(text), 100))  # widened on the way
    alphabet, kind = corpus.encode(pieces, tmp_path / "out")
    assert (np.fromfile(tmp_path / "out", kind) == found.tokens).all()


def test_too_many_characters_are_refused(tmp_path):
    text = "".join(chr(i) for i in range(0x10000, 0x10000 + (1 << 16) + 1))
    with pytest.raises(ValueError, match="more than 65,536 different characters"):
        corpus.encode([text], tmp_path / "out")


def test_the_last_tenth_is_held_out_as_in_nanogpt(text_file):
    found = corpus.load(str(text_file))
    data = TEXT
    train, val = data[: int(len(data) * 0.9)], data[int(len(data) * 0.9) :]
    assert found.decode(found.part("train")) == train
    assert found.decode(found.part("val")) == found.decode(found.part("test")) == val


@pytest.mark.skipif(not SHARED.is_file(), reason="the canonical file is not here")
def test_tinyshakespeare_is_the_canonical_one(monkeypatch):
    monkeypatch.setenv("ADDGPT_DATA", str(SHARED.parent))
    found = corpus.load("tinyshakespeare")
    assert (len(found.tokens), len(found.part("val")), len(found.alphabet)) == (1115394, 111540, 65)
    assert found.sha256 == sources.KNOWN["tinyshakespeare"][1]
    assert found.decode(found.tokens) == SHARED.read_text()


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("data", "place"),
    [(b"\xff", 0), (b"abc\xffdef", 3), ("é€😀".encode() + b"\x80", 9), (b"ab\xe2\x82", 2),
     (b"\xc3\xa9\xc3(", 2), (b"\xef\xbb\xbfab\xfe", 5)],
)  # fmt: skip
def test_the_first_byte_that_is_not_utf8_is_named(tmp_path, data, place, chunk):
    file = tmp_path / "bad.txt"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"bad.txt is not UTF-8: byte {place} is 0x"):
        list(corpus.texts([file], chunk))


def test_files_of_a_glob_are_joined_in_order_with_newlines_between(tmp_path):
    for name, text in (("b.txt", "second"), ("a.txt", "\ufefffirst\n"), ("c.txt", "third")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "d.txt").mkdir()
    assert read(corpus.load(str(tmp_path / "*.txt"))) == "first\nsecond\nthird"


def test_nothing_but_a_byte_order_mark_is_changed(tmp_path):
    text = "one\r\ntwo\x0b\x00\x85\u2028\tend"
    (tmp_path / "odd.txt").write_bytes(text.encode())
    assert read(corpus.load(str(tmp_path / "odd.txt"))) == text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "corpus is missing; valid: tinyshakespeare, a file"),
        ("nothing-*.txt", "no file matches corpus 'nothing-.*hf:NAME"),
        ("tinyshakespear", "no file matches corpus 'tinyshakespear'; valid: tinyshakespeare"),
        (".", "is a folder; give a file or a glob"),
        ("empty.txt", "empty.txt is empty"),
        ("hf:", "names no data set"),
    ],
)
def test_what_is_no_corpus_is_refused_in_words(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=message):
        corpus.load(name)
    assert not cached(tmp_path)


def test_the_data_folder_is_looked_in_first(tmp_path, monkeypatch):
    data, here = tmp_path / "data", tmp_path / "here"
    for folder, text in ((data, "data"), (here, "here")):
        folder.mkdir()
        (folder / "some.txt").write_text(text)
    monkeypatch.chdir(here)
    assert read(corpus.load("some.txt")) == "here"
    monkeypatch.setenv("ADDGPT_DATA", str(data))
    for name in ("some.txt", "so*.txt", "https://host.invalid/a/some.txt?b=c", "hf:owner/some:en"):
        assert read(corpus.load(name)) == "data"
    monkeypatch.setenv("ADDGPT_DATA", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="ADDGPT_DATA is .*none', which is not a folder"):
        corpus.load("some.txt")


def test_a_wrong_tinyshakespeare_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ADDGPT_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare.txt").write_text("to be")
    with pytest.raises(OSError, match="its sha256 is .*, not 86c4e6aa"):
        corpus.load("tinyshakespeare")


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(text_file, tmp_path):
    afresh(text_file)
    (made,) = cached(tmp_path)
    before = made.stat().st_mtime_ns
    assert read(afresh(text_file)) == TEXT and made.stat().st_mtime_ns == before
    text_file.write_text(TEXT[::-1], encoding="utf-8")  # of the same size
    state = text_file.stat()
    os.utime(text_file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert read(afresh(text_file)) == TEXT[::-1]
    assert cached(tmp_path) == [made]


def test_a_damaged_cache_is_made_anew(text_file, tmp_path):
    afresh(text_file)
    (made,) = cached(tmp_path)
    whole = made.read_bytes()
    broken = [whole[:size] for size in range(0, len(whole), 29)] + [b"x" * 40, whole + b"x"]
    for place in range(0, len(whole), 11):
        broken.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in broken:
        made.write_bytes(content)
        assert read(afresh(text_file)) == TEXT
    assert made.read_bytes() == whole


def test_an_interrupted_reading_leaves_nothing(text_file, tmp_path, monkeypatch):
    def stops(files, chunk, tell):
        yield "half of the"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "texts", stops)
        with pytest.raises(KeyboardInterrupt):
            corpus.load(str(text_file))
    assert not cached(tmp_path)
    part = tmp_path / "cache" / "corpora" / ".some.tokens.part"  # what a killed process leaves
    part.write_bytes(b"half")
    assert read(afresh(text_file)) == TEXT


def test_a_file_that_grows_while_it_is_read_is_refused(text_file, tmp_path, monkeypatch):
    def grows(*args):
        text_file.write_text(TEXT * 2, encoding="utf-8")
        yield TEXT

    monkeypatch.setattr(corpus, "texts", grows)
    with pytest.raises(ValueError, match="was changed while it was read"):
        corpus.load(str(text_file))
    assert not cached(tmp_path)


def start(code: str, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *words]
    settings = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=settings)


def test_processes_that_start_together_make_one_file(tmp_path):
    file = tmp_path / "big.txt"
    file.write_text(TEXT * 20_000, encoding="utf-8")
    code = (
        "import sys, zlib; from tasks.common import corpus;"
        "found = corpus.load(sys.argv[1]); print(zlib.crc32(found.tokens), found.sha256)"
    )
    others = [start(code, str(file)) for _ in range(4)]
    said = {other.communicate()[0] for other in others}
    assert [other.returncode for other in others] == [0] * 4
    assert len(said) == 1 and len(cached(tmp_path)) == 1
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert said.pop().split()[1] == digest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_a_corpus_larger_than_memory_is_read(tmp_path):
    """Within 48 MB of heap beyond that of the imports, where holding the file fails."""
    file = tmp_path / "big.txt"
    line = "".join(chr(33 + i % 90) for i in range(1 << 20)).encode()
    with open(file, "wb") as out:
        for _ in range(64):
            out.write(line)
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np, rich.progress;"
        "from tasks.common import corpus;"
        "status = Path('/proc/self/status').read_text();"
        "used = int(status.split('VmData:')[1].split()[0]) << 10;"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + (48 << 20),) * 2)\n"
        "try: Path(sys.argv[1]).read_bytes()\n"
        "except MemoryError: print('too large to hold')\n"
        "found = corpus.load(sys.argv[1])\n"
        "print(len(found.tokens), found.tokens.dtype, int(found.tokens[-1]))"
    )
    said, _ = start(code, str(file)).communicate()
    size = 64 << 20
    assert said.split("\n")[:2] == ["too large to hold", f"{size} uint8 {(line[-1] - 33)}"]


class Server:
    """Serves one text over HTTP; counts requests; may promise more bytes than it sends."""

    def __init__(self) -> None:
        self.content, self.status, self.missing, self.requests = TEXT.encode(), 200, 0, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(server.content) + server.missing))
                self.end_headers()
                self.wfile.write(server.content)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/folder/text.txt"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_an_address_is_fetched_once(server, tmp_path):
    assert read(corpus.load(server.url)) == TEXT
    assert read(afresh(server.url)) == TEXT
    assert server.requests == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"missing": 100}, "cannot be fetched"),
        ({"status": 404}, "the server answers 404"),
        ({"content": b"other"}, "what was downloaded is damaged"),
    ],
)
def test_what_was_not_wholly_fetched_is_never_used(server, tmp_path, monkeypatch, fault, message):
    sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
    monkeypatch.setitem(sources.KNOWN, "tinyshakespeare", (server.url, sha256))
    for name, value in fault.items():
        setattr(server, name, value)
    with pytest.raises(OSError, match=message):
        corpus.load("tinyshakespeare")
    assert not cached(tmp_path)
    server.content, server.status, server.missing = TEXT.encode(), 200, 0
    assert read(corpus.load("tinyshakespeare")) == TEXT


def test_a_download_damaged_later_is_fetched_again(server, tmp_path, monkeypatch):
    sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
    monkeypatch.setitem(sources.KNOWN, "tinyshakespeare", (server.url, sha256))
    corpus.load("tinyshakespeare")
    (file,) = (tmp_path / "cache" / "downloads").glob("*tinyshakespeare.txt")
    file.write_bytes(file.read_bytes()[:10])
    assert read(afresh("tinyshakespeare")) == TEXT


def test_without_a_network_there_are_three_ways_on(server, tmp_path, monkeypatch):
    server.http.server_close()
    monkeypatch.setenv("ADDGPT_DATA", str(tmp_path))
    with pytest.raises(OSError) as failure:
        corpus.load(server.url)
    line = failure.value.strerror
    assert failure.value.filename == server.url and "\n" not in line
    for part in ("cache/downloads", f"ADDGPT_DATA={tmp_path}", "put text.txt into", "corpus=FILE"):
        assert part in line
    assert "try again with a network" in line


def test_hf_names_the_extra_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs datasets: pip install 'addgpt\[text\]'"):
        corpus.load("hf:owner/name")


def streaming(monkeypatch, rows) -> list:
    """Stands in for the datasets library; returns what it was asked for."""
    asked = []

    def load_dataset(*names, **how):
        asked.append((names, how))
        return rows()

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_hf_is_streamed_once(monkeypatch):
    asked = streaming(monkeypatch, lambda: iter([{"id": "x", "text": "één"}, {"text": "two\n"}]))
    for _ in range(2):
        assert read(afresh("hf:owner/name:nl")) == "één\ntwo\n"
    assert asked == [(("owner/name", "nl"), {"split": "train", "streaming": True})]


def test_the_library_itself_streams_a_folder_of_texts(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "texts").mkdir()
    rows = '{"n": 1, "text": "one"}\n{"n": 2, "text": "é"}\n'
    (tmp_path / "texts" / "some.jsonl").write_text(rows, encoding="utf-8")
    assert read(afresh(f"hf:{tmp_path / 'texts'}")) == "one\né"


def test_hf_takes_the_first_column_of_text_and_leaves_nothing_half_done(monkeypatch, tmp_path):
    def breaks(error=TimeoutError):
        yield {"label": 1, "story": "once"}
        raise error

    streaming(monkeypatch, lambda: breaks(ValueError("no config\nof this name")))
    with pytest.raises(
        sources.UsageError, match="hf:owner/name cannot be read: no config of this name"
    ):
        corpus.load("hf:owner/name")
    streaming(monkeypatch, breaks)
    with pytest.raises(OSError, match=r"cannot be fetched \(TimeoutError\).*put name.txt into"):
        corpus.load("hf:owner/name")
    assert not cached(tmp_path)
    streaming(monkeypatch, lambda: iter([{"label": 1, "story": "once"}]))
    assert read(corpus.load("hf:owner/name")) == "once"
    streaming(monkeypatch, lambda: iter([{"label": 1}]))
    with pytest.raises(ValueError, match="has no column of text, but label"):
        corpus.load("hf:owner/other")
