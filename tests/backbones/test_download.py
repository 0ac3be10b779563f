import hashlib
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detect.backbones import download
from detect.backbones.download import fetch_file, hash_in, verify_hash
from detect.errors import DetectError

CONTENT = bytes(range(251)) * 4000  # a megabyte, in no period of a power of two
HASH = hashlib.sha256(CONTENT).hexdigest()
NAME = f"network-{HASH[:8]}.pth"


@dataclass
class Site:
    """What the server does, to be set by a test, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    break_after: int | None = None  # bytes of an answer, then the connection ends
    chunked: bool = False
    stall: bool = False  # keep the connection open instead of ending it
    shift: int = 0  # the answer to a range begins that much later than asked
    redirect: str | None = None
    asked: list[str | None] = field(default_factory=list)  # the Range of each request
    over: threading.Event = field(default_factory=threading.Event)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self):
        site = self.site
        asked = self.headers["Range"]
        if site.redirect and self.path != "/elsewhere/" + NAME:
            self.send_response(302)
            self.send_header("Location", site.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        site.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
        if start > 0 and start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start += site.shift if start else 0
        self.send_body(site.content[start:], start)

    def send_body(self, body, start):
        site = self.site
        self.send_response(206 if start else 200)
        if start:
            last = len(site.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(site.content)}")
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        whole = site.break_after is None
        sent = body[: site.break_after]
        if site.chunked:
            announced = len(sent) if whole else len(body)
            self.wfile.write(f"{announced:x}\r\n".encode() + sent)
            self.wfile.write(b"\r\n0\r\n\r\n" if whole else b"")
        else:
            self.wfile.write(sent)
        self.wfile.flush()
        if site.stall:
            site.over.wait(10)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    handler = type("HandlerOfSite", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield site
    site.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def interrupted(site, folder, count=300_000):
    """Leave the first `count` bytes of the file behind, as a download does that breaks off."""
    site.break_after = count
    with pytest.raises(DetectError) as caught:
        fetch_file(f"{site.address}/{NAME}", folder)
    site.break_after = None
    return str(caught.value)


def assert_whole(path, folder):
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_is_fetched_once_under_its_own_name(site, folder, chunked):
    site.chunked = chunked
    url = f"{site.address}/models/{NAME}?version=2#top"
    assert_whole(fetch_file(url, folder / "deep"), folder / "deep")
    fetch_file(url, folder / "deep")
    assert site.asked == [None]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_broken_download_says_how_much_came_and_goes_on(site, folder, chunked):
    site.chunked = chunked
    message = interrupted(site, folder)
    assert message.startswith(f"{NAME}: the connection broke off (")
    assert f"after 0.3{'' if chunked else ' of 1.0'} MB from {site.address}/{NAME};" in message
    assert message.endswith("the same command resumes from there")
    part = folder / f"{NAME}.part"
    received = part.read_bytes()
    assert received == CONTENT[: len(received)]
    assert len(received) == 300_000
    assert not (folder / NAME).exists()

    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == [None, f"bytes={len(received)}-"]


def test_a_download_may_break_off_several_times(site, folder):
    for _ in range(3):
        interrupted(site, folder)
    assert (folder / f"{NAME}.part").stat().st_size == 900_000
    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_that_knows_no_ranges_sends_all_of_it(site, folder):
    interrupted(site, folder)
    site.ranges = False
    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == [None, "bytes=300000-"]


def test_an_answer_from_another_byte_on_is_asked_for_anew(site, folder):
    interrupted(site, folder)
    site.shift = 7
    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == [None, "bytes=300000-", None]


@pytest.mark.parametrize("extra", [0, 5])
def test_a_part_as_long_as_the_file_or_longer_is_fetched_anew(site, folder, extra):
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(CONTENT + bytes(extra))
    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == [f"bytes={len(CONTENT) + extra}-", None]


def test_a_part_of_another_content_is_fetched_anew(site, folder):
    folder.mkdir()
    (folder / f"{NAME}.part").write_bytes(b"of an earlier version")
    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == ["bytes=21-", None]


def test_another_content_than_the_name_says_is_refused(site, folder):
    site.content = b"<html>log in first</html>"
    with pytest.raises(DetectError) as caught:
        fetch_file(f"{site.address}/{NAME}", folder)
    found = hashlib.sha256(site.content).hexdigest()
    assert f"whose sha256 begins with {HASH[:8]}, as its name says, found {found};" in (
        str(caught.value)
    )
    assert list(folder.iterdir()) == []


def test_a_name_without_a_hash_is_never_put_together_from_parts(site, folder):
    folder.mkdir()
    part = folder / "network.pth.part"
    part.write_bytes(b"of an earlier version")
    site.break_after = 10
    with pytest.raises(DetectError, match="starts over, since its name carries"):
        fetch_file(f"{site.address}/network.pth", folder)
    assert part.read_bytes() == CONTENT[:10]
    site.break_after = None
    assert fetch_file(f"{site.address}/network.pth", folder).read_bytes() == CONTENT
    assert site.asked == [None, None]


def test_a_file_in_the_folder_is_verified(site, folder):
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(DetectError, match=rf"{NAME}: expected content whose sha256 begins with"):
        fetch_file(f"{site.address}/{NAME}", folder)
    assert site.asked == []


def test_a_server_that_falls_silent_is_left(site, folder, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    site.stall = True
    assert "the connection broke off (timed out) after 0.3 of 1.0 MB" in interrupted(site, folder)


def test_a_server_that_never_answers_is_left(folder, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(DetectError, match=r"could not be downloaded: .* \(.*timed out.*\)\. "):
            fetch_file(f"http://127.0.0.1:{port}/{NAME}", folder)


def test_without_a_network_the_message_says_what_to_do(folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/models/{NAME}"
        with pytest.raises(DetectError) as caught:
            fetch_file(url, folder)
    message = str(caught.value)
    assert message.startswith(f"{NAME} is not here and could not be downloaded: looked for ")
    assert f"looked for {folder / NAME}, then asked {url} (" in message
    assert f"Bring the file {NAME} from a machine with a network and put it into {folder} (" in (
        message
    )
    assert message.endswith("or give its path as backbone.weights")


def test_a_redirection_is_followed_with_the_range(site, folder):
    interrupted(site, folder)
    site.redirect = f"{site.address}/elsewhere/{NAME}"
    assert_whole(fetch_file(f"{site.address}/{NAME}", folder), folder)
    assert site.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirection_leads_to_http_alone(site, folder, target):
    site.redirect = target
    with pytest.raises(DetectError, match=r"not be downloaded: .*(not allowed|unknown url type)"):
        fetch_file(f"{site.address}/{NAME}", folder)
    assert list(folder.iterdir()) == []


def test_only_http_addresses_with_a_file_name_are_asked(tmp_path, folder):
    (tmp_path / NAME).write_bytes(CONTENT)
    for url in (
        (tmp_path / NAME).as_uri(),
        f"ftp://127.0.0.1/{NAME}",
        f"http:///{NAME}",
        "https://127.0.0.1/",
        NAME,
    ):
        with pytest.raises(DetectError, match="expected an http or https address that ends with"):
            fetch_file(url, folder)
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_named(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DetectError, match=rf"{NAME}: cannot be written: (File exists|Not a dir)"):
        fetch_file(f"{site.address}/{NAME}", tmp_path / "file")


def test_a_terminal_shows_how_far_it_is(site, folder, monkeypatch, capsys):
    fetch_file(f"{site.address}/{NAME}", folder)
    assert capsys.readouterr() == ("", "")
    (folder / NAME).unlink()
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take anything for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    fetch_file(f"{site.address}/{NAME}", folder)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert NAME in captured.err
    assert "1.0/1.0 MB" in captured.err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18-f37072fd.pth", "f37072fd"),
        ("mnasnet0.5_top1_67.823-3ffadce67e.pth", "3ffadce67e"),
        ("vgg13-19584684.pth", "19584684"),  # no month 58
        (f"whole-{HASH}.safetensors", HASH),
        ("twice-deadbeef-f37072fd.pth.tar", "f37072fd"),
        ("best-20240131.pt", None),
        ("resnet18-f37072f.pth", None),
        (f"longer-{HASH}0.pth", None),
        ("resnet18_fbgemm_16fa66dd.pth", None),
        ("resnet18-f37072fd", None),
        ("deadbeef.pth", None),
        ("a-deadbeef (1).pth", None),
    ],
)
def test_the_hash_in_a_name(name, expected):
    assert hash_in(name) == expected


def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    verify_hash(path)
    path.rename(tmp_path / "network.pth")
    verify_hash(tmp_path / "network.pth")
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(DetectError) as caught:
        verify_hash(path)
    message, found = str(caught.value), hashlib.sha256(CONTENT + b"x").hexdigest()
    assert message.startswith(f"{path}: expected content whose sha256 begins with {HASH[:8]}, ")
    assert f"found {found}; the file is damaged or has another's name" in message
    with pytest.raises(DetectError, match="cannot be read: No such file"):
        verify_hash(tmp_path / "absent-01234567.pth")
