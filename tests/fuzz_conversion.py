"""Convert thousands of damaged files in one process that notes whatever it should not do. Run by test_convert.py.

    python fuzz_conversion.py FOLDER    # with FOLDER/original.pt and FOLDER/original.safetensors in it

Prints how many cases of each kind there were and how they ended. Exit code 1, with the case, when a file made the
process run or write something, take long, or end in anything but a conversion or a UserError.
"""

import os
import random
import signal
import sys
import zipfile
from collections import Counter
from pathlib import Path

from mmdyn.convert import convert_from_original, read_original
from mmdyn.errors import UserError

RUNS = {
    'os.system', 'os.exec', 'os.fork', 'os.forkpty', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen', 'pty.spawn',
    'socket.connect', 'socket.bind', 'ctypes.dlopen', 'code.__new__', 'webbrowser.open',
}  # fmt: skip
# Converting also reads a config, which is code of the project, and which MMEngine copies to a temporary folder.
READING_RUNS = RUNS | {'exec', 'compile', 'import'}
WRITES = {
    'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.chmod', 'os.link', 'os.symlink', 'os.truncate',
    'shutil.rmtree', 'shutil.move',
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SECONDS = 20
OPCODES = (
    b'().0123456789IJKLMNUVXacdeghijlopqrst}]RbuQ\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x8f\x93\x94\x95\x96'
)

watched: set = set()
ran, wrote = [], []


def torch_imports_itself(event, arguments):
    """Whether this is PyTorch loading a part of itself late, or what that part loads."""
    if event == 'import' and arguments[0].startswith('torch.'):
        return True
    frame = sys._getframe(2)
    while frame and not frame.f_code.co_filename.startswith('<frozen importlib'):
        frame = frame.f_back
    return frame is not None


def watch(event, arguments):
    """Note what a file must not bring about."""
    if not watched:
        return
    if event in watched and not torch_imports_itself(event, arguments):
        ran.append((event, str(arguments)[:200]))
    opens = event == 'open' and isinstance(arguments[2], int) and arguments[2] & WRITING
    if watched is READING_RUNS and (event in WRITES or opens):
        wrote.append((event, str(arguments)[:200]))


def too_long(*_):
    raise SystemExit(f'a case took more than {SECONDS} seconds')


def attempt(path, target):
    """Convert, and say how it ended; a file that is still whole may be converted."""
    global watched
    ran.clear(), wrote.clear()
    signal.alarm(SECONDS)
    try:
        watched = READING_RUNS
        read_original(path)
        watched = RUNS
        convert_from_original(path, target)
    except UserError as e:
        watched = set()
        named = str(path) in str(e)
        assert not wrote, wrote[:3]
        assert not target.exists()
        return 'refused' if named else f'refused without its name: {e}'
    finally:
        watched = set()
        signal.alarm(0)
        assert not ran, ran[:3]
    target.unlink()
    return 'converted'


def flipped(data, rng, low=0, high=None):
    """Some bytes changed between two places."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(low, high or len(data))] = rng.randrange(256)
    return bytes(data)


def cut_or_grown(data, rng):
    """A pickle with bytes changed, left out, put in or repeated."""
    place = rng.randrange(len(data))
    kind = rng.randrange(4)
    if kind == 0:
        return flipped(data, rng)
    if kind == 1:
        return data[:place] + data[place + rng.randint(1, 30) :]
    if kind == 2:
        return data[:place] + bytes(rng.choices(OPCODES, k=rng.randint(1, 6))) + data[place:]
    return data[:place] + data[max(place - rng.randint(1, 200), 0) :]


def write_archive(path, entries, pickled):
    """An archive with another pickle in it, and right checksums."""
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(name, pickled if name.endswith('data.pkl') else content)


def cases(folder, rng, stride):
    """(kind, path) of every case, or of one in ``stride``, one after another in the same file."""
    whole = (folder / 'original.pt').read_bytes()
    path = folder / 'case.pt'
    path.write_bytes(whole)
    for size in range(len(whole) // 1024 * 1024, -1, -1024 * stride):
        os.truncate(path, size)
        yield 'truncated', path
    for _ in range(600 // stride):
        path.write_bytes(flipped(whole, rng))
        yield 'bytes flipped anywhere', path
    directory = whole.rindex(b'PK\x01\x02') - 60 * 400  # some 400 of its entries
    for _ in range(500 // stride):
        path.write_bytes(flipped(whole, rng, directory))
        yield 'bytes flipped in the directory', path
    with zipfile.ZipFile(folder / 'original.pt') as archive:
        entries = {e.filename: archive.read(e) for e in archive.infolist()}
    pickled = next(content for name, content in entries.items() if name.endswith('data.pkl'))
    for _ in range(700 // stride):
        write_archive(path, entries, cut_or_grown(pickled, rng))
        yield 'pickle damaged under a right checksum', path
    for _ in range(50 // stride):
        path.write_bytes(rng.randbytes(rng.randrange(5000)))
        yield 'noise', path
    whole = (folder / 'original.safetensors').read_bytes()
    path = folder / 'case.safetensors'
    header = 8 + int.from_bytes(whole[:8], 'little')
    for _ in range(300 // stride):
        path.write_bytes(flipped(whole, rng, high=header) if rng.random() < 0.8 else whole[: rng.randrange(len(whole))])
        yield 'safetensors damaged', path


def main(folder, stride=1):
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, too_long)
    target = folder / 'target.pth'
    for whole in ('original.pt', 'original.safetensors'):  # everything that is imported late is there after this
        convert_from_original(folder / whole, target)
        target.unlink()
    ends, count = Counter(), 0
    for kind, path in cases(folder, random.Random(0), stride):
        kept = sorted(os.listdir(folder))
        try:
            ends[kind, attempt(path, target)] += 1
        except BaseException:
            path.replace(folder / f'failed-{count}{path.suffix}')
            print(f'case {count}, {kind}: {folder}/failed-{count}{path.suffix}', file=sys.stderr)
            raise
        assert sorted(os.listdir(folder)) == kept
        count += 1
    for (kind, end), number in sorted(ends.items()):
        print(f'{number:6} {kind}: {end}')
    print(f'{count:6} in all')


if __name__ == '__main__':
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
