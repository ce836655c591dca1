"""Sources of images: files, folders, patterns, lists, URLs, videos, streams; and what is said where there is none."""

import contextlib
import io
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from mmdyn.errors import UserError
from mmdyn.inference import media as media_module
from mmdyn.inference.media import EndsEarlyError, open_media, unique_names


def picture(value: int) -> np.ndarray:
    return np.full((32, 48, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Images whose pixels are 10, 20 and 30, in two folders."""
    for name, value in (('one/1.png', 10), ('one/2.png', 20), ('two/1.png', 30)):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(value))
    return tmp_path / 'images'


def write_video(path, frames: int):
    """A video whose frame i has the brightness 10 * i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (48, 32))
    for i in range(frames):
        writer.write(picture(10 * i))
    writer.release()
    return path


def values(media) -> list[int]:
    return [round(float(frame.image.mean())) for frame in media]


def test_patterns_and_lists(folder, tmp_path, monkeypatch):
    assert values(open_media(f'{folder}/one/*.png')) == [10, 20]
    every = open_media(f'{folder}/**/*.png')
    assert [(frame.name, frame.path) for frame in every] == [
        ('1.png', f'{folder}/one/1.png'),
        ('2.png', f'{folder}/one/2.png'),
        ('1-2.png', f'{folder}/two/1.png'),
    ]
    listed = f'{folder}/two/1.png\n\n{folder}/one/2.png\n'
    (tmp_path / 'list.txt').write_text(listed)
    assert values(open_media(str(tmp_path / 'list.txt'))) == [30, 20]
    monkeypatch.setattr(sys, 'stdin', io.StringIO(listed))
    assert values(open_media('-')) == [30, 20]
    with pytest.raises(UserError, match='standard input lists no image'):
        open_media('-')
    with pytest.raises(UserError, match=r'no image matches .*\*\.jpg'):
        open_media(f'{folder}/*.jpg')
    odd = tmp_path / 'a [b]*.png'  # a name, although it looks like a pattern
    cv2.imwrite(str(odd), picture(40))
    assert values(open_media(str(odd))) == [40]


def test_names_are_unique():
    assert unique_names(['a/1.jpg', 'b/1-2.jpg', 'c/1.jpg', 'd/1.jpg']) == ['1.jpg', '1-2.jpg', '1-3.jpg', '1-4.jpg']


def test_unreadable_images_are_left_out_and_named_at_the_end(folder):
    (folder / 'one/0.png').write_text('no image')
    frames, media = [], open_media(str(folder / 'one'))
    with pytest.raises(EndsEarlyError, match=r'1 of 3 images could not be read, .*0\.png is not an image'):
        frames.extend(media)
    assert [frame.name for frame in frames] == ['1.png', '2.png']


@pytest.mark.parametrize(('stride', 'expected'), [(1, range(7)), (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (9, [0])])
def test_stride_takes_every_nth_frame(tmp_path, stride, expected):
    video = open_media(str(write_video(tmp_path / 'v.avi', 7)), stride=stride)
    assert (video.count, video.fps) == (len(list(expected)), 10 / stride)
    frames = list(video)
    assert [frame.name for frame in frames] == [f'{i:06d}' for i in expected]
    assert values(frames) == pytest.approx([10 * i for i in expected], abs=2)


def test_a_video_without_frames(tmp_path):
    write_video(tmp_path / 'v.avi', 0)
    with pytest.raises(UserError, match=r'v\.avi (has no frames|is not a video that OpenCV reads)'):
        open_media(str(tmp_path / 'v.avi'))


def test_a_file_that_states_no_length_ends(tmp_path):
    """A recording that was cut has no index: its end is the end, and nothing is opened again."""
    writer = cv2.VideoWriter(str(tmp_path / 'v.mkv'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (48, 32))
    for i in range(60):
        writer.write(picture(4 * i))
    writer.release()
    content = (tmp_path / 'v.mkv').read_bytes()
    (tmp_path / 'cut.mkv').write_bytes(content[: len(content) * 2 // 3])
    cut = open_media(str(tmp_path / 'cut.mkv'))
    frames = []
    with contextlib.suppress(EndsEarlyError):
        frames.extend(cut)
    assert 20 < len(frames) < 60


@pytest.mark.parametrize(
    ('url', 'message'),
    [
        ('foo://x.jpg', 'foo://x.jpg: the scheme must be http, https, rtsp'),
        ('rtp://me:secret@127.0.0.1:9/a', r'rtp://me:\*\*\*@127.0.0.1:9/a is not a video'),
    ],
)
def test_addresses_are_named_without_passwords(url, message):
    with pytest.raises(UserError, match=message):
        open_media(url)


class Server(BaseHTTPRequestHandler):
    """Serves an image, and a stream of as many frames as its path says, which it closes then."""

    def do_GET(self):
        jpeg = cv2.imencode('.jpg', picture(50))[1].tobytes()
        if self.path in ('/image', '/?image'):
            self.send_response(200)
            self.send_header('Content-Type', 'image/jpeg')
            self.end_headers()
            self.wfile.write(jpeg)
        elif self.path.startswith('/stream'):
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(int(self.path.removeprefix('/stream'))):
                    head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'
                    self.wfile.write(head.encode() + jpeg + b'\r\n')
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(('127.0.0.1', 0), Server) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{served.server_port}'
        served.shutdown()


def test_urls(server):
    image = open_media(f'{server}/image')
    assert (image.count, [frame.name for frame in image]) == (1, ['image'])
    assert open_media(f'{server}/?image').names == ['127.0.0.1']
    with pytest.raises(UserError, match='/nothing cannot be opened: Not Found'):
        open_media(f'{server}/nothing')
    with pytest.raises(UserError, match=r'nothing\.jpg cannot be read'):
        open_media(f'{server}/nothing.jpg')
    with pytest.raises(UserError, match='cannot be opened: .*refused'):
        open_media('http://127.0.0.1:9/photo')


def test_a_stream_that_closes_is_opened_again(server, monkeypatch, capsys):
    monkeypatch.setattr(media_module, 'PAUSES', (0, 0))
    stream = open_media(f'{server}/stream20')
    assert stream.count is None
    frames = []
    tries = 0

    def opened_once(self, first=media_module.Video._opened):
        nonlocal tries
        tries += 1
        return first(self) if tries == 1 else None

    monkeypatch.setattr(media_module.Video, '_opened', opened_once)
    with pytest.raises(EndsEarlyError, match=r'closed, and did not open again in 2 tries: \d+ frames were read'):
        frames.extend(stream)
    assert tries == 3
    assert 20 < len(frames) <= 40  # those of two connections, less what the decoder waits for
    assert capsys.readouterr().err.count('it is opened again') == 3


def test_an_address_that_closes_at_once():
    with socket.create_server(('127.0.0.1', 0)) as listening:

        def close_all():
            with contextlib.suppress(OSError):
                while True:
                    listening.accept()[0].close()

        threading.Thread(target=close_all, daemon=True).start()
        url = f'rtsp://127.0.0.1:{listening.getsockname()[1]}/camera'
        with pytest.raises(UserError, match='rtsp://.*/camera is not a video that OpenCV reads'):
            open_media(url)
        listening.shutdown(socket.SHUT_RDWR)
