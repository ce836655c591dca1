"""Tracking: moving digits that cross keep their numbers; and what is written of them."""

import json
import sys

import numpy as np
import pytest

import mmdyn
from mmdyn.datasets import make_digits_video
from mmdyn.errors import UserError
from mmdyn.inference.media import open_media
from mmdyn.inference.prediction import Prediction

pytest.importorskip('trackers', reason='needs requirements/track.txt')

from mmdyn.inference.onnx_detector import Detections
from mmdyn.inference.tracking import TRACKERS, Tracks


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """A video of moving digits, and its tracks as text of the MOT challenge."""
    folder = tmp_path_factory.mktemp('video')
    frames = make_digits_video(folder / 'digits.mp4')
    lines = [
        f'{i},{number + 1},{",".join(map(str, box))},1,1,1'
        for i, objects in enumerate(frames, 1)
        for number, box, _ in objects
    ]
    (folder / 'truth.txt').write_text('\n'.join(lines))
    return folder, frames


def test_digits_cross(video):
    _, frames = video
    assert len(frames) == 200

    def overlap(a, b):
        return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))

    pairs = {
        (one[0], other[0])
        for objects in frames
        for one in objects
        for other in objects
        if one[0] < other[0] and overlap(one[1], other[1])
    }
    assert len(pairs) >= 5


@pytest.mark.slow
def test_crossing_digits_keep_their_numbers(video, call):
    from trackers.eval import evaluate_mot_sequence

    folder, _ = video
    done = call('tools/track.py', folder / 'digits.mp4', 'digits', '--out-dir', folder / 'out')
    assert done.returncode == 0, done.stderr[-2000:]
    result = evaluate_mot_sequence(folder / 'truth.txt', folder / 'out/tracks/digits.txt', ['Identity'])
    assert result.Identity.IDF1 >= 0.9
    assert open_media(str(folder / 'out/vis/digits.mp4')).count == 200
    lines = [json.loads(line) for line in (folder / 'out/preds/digits.jsonl').read_text().splitlines()]
    assert len(lines) == 200
    assert [line['image'] for line in lines[:2]] == ['000000', '000001']
    rows = [line for line in (folder / 'out/tracks/digits.txt').read_text().splitlines()]
    assert len(rows) == sum(len(line['ids']) for line in lines)
    frame, number, left, top, width, height, score, label, _ = map(float, rows[-1].split(','))
    last = lines[int(frame) - 1]
    assert int(number) == last['ids'][-1]
    assert int(label) - 1 == last['labels'][-1]
    assert [left, top, left + width, top + height] == pytest.approx(last['bboxes'][-1], abs=0.02)
    assert score == pytest.approx(last['scores'][-1], abs=1e-3)


def moving(frame: int) -> Prediction:
    """Two objects that move apart; the second is hidden in some frames."""
    boxes = [[10 + frame, 10, 40 + frame, 40], [90 - frame, 50, 120 - frame, 80]][: 1 if 8 <= frame < 10 else 2]
    found = Detections(np.array(boxes, np.float32), np.full(len(boxes), 0.9, np.float32), np.arange(len(boxes)))
    return Prediction.of(np.full((96, 128, 3), 128, np.uint8), ['one', 'two'], found, None)


@pytest.mark.parametrize('tracker', TRACKERS)
def test_every_tracker_keeps_numbers_and_classes(tracker):
    tracks = Tracks(tracker, 25.0)
    followed = [tracks.follow(moving(frame)) for frame in range(16)]
    last = followed[-1]
    assert len(last.pred_instances) == 2
    by_label = dict(zip(last.pred_instances.labels.tolist(), last.pred_instances.instances_id.tolist(), strict=True))
    for prediction in followed[4:]:
        for label, number in zip(
            prediction.pred_instances.labels.tolist(), prediction.pred_instances.instances_id.tolist(), strict=True
        ):
            assert by_label[label] == number
    trail = last.trails[by_label[0]]
    np.testing.assert_allclose(trail[-1], [40, 25])
    assert last.draw().shape == (96, 128, 3)
    assert 'ids' in last.rows()


def test_the_generator_is_lazy_and_stands_in_python(video):
    folder, _ = video
    model = mmdyn.load_model('digits', device='cpu')
    tracked = model.track(folder / 'digits.mp4', stride=2, tracker_options=dict(minimum_consecutive_frames=1))
    first, second, third = next(tracked), next(tracked), next(tracked)
    assert (first.name, second.name) == ('000000', '000002')
    assert set(second.pred_instances.instances_id.tolist()) & set(third.pred_instances.instances_id.tolist())


def test_frames_count_as_in_the_video(video, tmp_path):
    from mmdyn.inference.results import Outputs, write_results

    model = mmdyn.load_model('digits', device='cpu')
    make_digits_video(tmp_path / 'v.mp4', frames=12)
    media = model.open(tmp_path / 'v.mp4', stride=3)
    write_results(
        media, model.track(media, tracker_options=dict(minimum_consecutive_frames=1)), tmp_path, Outputs(tracks=True)
    )
    frames = {int(line.split(',')[0]) for line in (tmp_path / 'tracks/v.txt').read_text().splitlines()}
    assert frames == {4, 7, 10}  # the first frame has no track yet


@pytest.mark.parametrize(
    'image', [np.zeros((64, 64, 1), np.uint8), np.zeros((64, 64, 3), np.float32)], ids=['grey', '16 bits']
)
def test_a_tracker_that_looks_at_pixels_takes_any(image):
    empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    tracks = Tracks('botsort', 25.0)
    for _ in range(3):
        assert len(tracks.follow(Prediction.of(image, ['a'], empty, None)).pred_instances) == 0


def test_the_tool_lists_the_trackers(call):
    assert ', '.join(TRACKERS) in ' '.join(call('tools/track.py', '--help').stdout.split())


def test_what_is_no_tracker_is_named(video):
    with pytest.raises(UserError, match="there is no tracker 'deepsort': set bytetrack, botsort, ocsort, cbiou, sort"):
        Tracks('deepsort', 25.0)
    with pytest.raises(UserError, match='sort has no option buffer: set lost_track_buffer, frame_rate'):
        Tracks('sort', 25.0, dict(buffer=3))
    model = mmdyn.load_model('digits', device='cpu')
    with pytest.raises(UserError, match='invalid stride 0'):
        model.track(video[0] / 'digits.mp4', stride=0)


def test_a_missing_package_is_named(monkeypatch, video):
    for name in ('trackers', 'supervision'):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    model = mmdyn.load_model('digits', device='cpu')
    with pytest.raises(UserError, match='tracking needs the package trackers: pip install trackers supervision'):
        model.track(video[0] / 'digits.mp4')
    with pytest.raises(UserError, match='tiles need the package supervision: pip install supervision'):
        model.sliced(64)
