"""The demo on images, videos and cameras, with a checkpoint and with an exported file; and the whole life cycle."""

import io
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from conftest import ROOT
from mmdyn.errors import UserError
from mmdyn.inference.load import Model, load_model
from mmdyn.inference.media import EndsEarlyError, open_media
from mmdyn.inference.onnx_detector import Detections, around, corners_of
from mmdyn.inference.results import Outputs, write_results

DEMO = ROOT / 'demo/image_demo.py'
CONFIG = 'yolo11n_dynconv_digits.py'


@pytest.fixture(scope='module')
def dynamic(alike):
    return alike(CONFIG)


@pytest.fixture(scope='module')
def exported(dynamic, tmp_path_factory):
    pytest.importorskip('onnxscript', reason='needs requirements/deploy.txt')
    from mmdyn.export.export import export_detector
    from mmdyn.export.options import ExportOptions

    target = tmp_path_factory.mktemp('demo') / 'model.onnx'
    return export_detector(*dynamic, target, ExportOptions()).path


def write_video(path, frames: int):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (96, 64))
    for i in range(frames):
        writer.write(np.random.default_rng(i).integers(0, 255, (64, 96, 3), np.uint8))
    writer.release()
    return path


def test_media_counts_and_reads(digits, tmp_path):
    folder = open_media(str(digits / 'val'))
    frames = list(folder)
    assert (folder.count, folder.fps, len(frames)) == (8, None, 8)
    assert frames[0].image.shape == (320, 320, 3)
    video = open_media(str(write_video(tmp_path / 'video.avi', 7)))
    assert (video.count, video.fps) == (7, 10)
    assert [f.name for f in video] == [f'{i:06d}' for i in range(7)]


def test_media_names_what_is_wrong(tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'text.mp4').write_text('no video')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'deep/er').mkdir(parents=True)
    for source, message in (
        (tmp_path / 'none.jpg', 'no image, folder or video at'),
        (tmp_path / 'text.jpg', r'text\.jpg is not an image that OpenCV reads'),
        (tmp_path / 'text.mp4', r'text\.mp4 is not a video that OpenCV reads'),
        (tmp_path / 'empty', 'no image in'),
        (tmp_path / 'deep', r"no image in .*Its folders are not searched: give '.*/\*\*/\*\.jpg' for them"),
        ('97', 'no camera with number 97'),
    ):
        with pytest.raises(UserError, match=message):
            open_media(str(source))


class Finds:
    """A detector that finds one box in every image."""

    names = ('thing',)
    channels, to_float32, skeleton = 3, False, ()

    def check_limits(self, limits):
        pass

    def __call__(self, images, *limits):
        return [Detections(np.float32([[1, 2, 30, 40]]), np.float32([0.9]), np.array([0])) for _ in images]


def written(source, out_dir, detector=None, batch=1, **outputs):
    """Detect in a source and write the results, by a detector that finds one box in every image."""
    model = Model(detector or Finds())
    media = model.open(source)
    return write_results(media, model.stream(media, batch=batch), out_dir, Outputs(**outputs))


def test_results_keep_every_image_and_its_source(tmp_path):
    image = np.full((64, 64, 3), 200, np.uint8)
    folder = tmp_path / 'vis'
    folder.mkdir()
    for name in ('a.jpg', 'a.png', 'b.png'):
        cv2.imwrite(str(folder / name), image)
    before = (folder / 'b.png').read_bytes()
    with pytest.raises(UserError, match='would overwrite their sources'):
        written(folder, tmp_path)
    assert (folder / 'b.png').read_bytes() == before
    assert written(folder, tmp_path / 'out', batch=2) == (3, 3)
    assert sorted(p.name for p in (tmp_path / 'out/preds').iterdir()) == ['a.jpg.json', 'a.png.json', 'b.json']
    (tmp_path / 'photo').write_bytes(before)  # an image by content, not by name
    assert written(tmp_path / 'photo', tmp_path / 'out') == (1, 1)
    drawn = cv2.imread(str(tmp_path / 'out/vis/photo.jpg'))
    assert np.abs(drawn.astype(int) - 200).max() > 50
    assert json.loads((tmp_path / 'out/preds/photo.json').read_text())['names'] == ['thing']


def test_a_failure_leaves_the_video_before_it(tmp_path):
    class Fails(Finds):
        def __call__(self, images, *limits):
            self.calls = getattr(self, 'calls', 0) + 1
            if self.calls > 3:
                raise UserError('enough')
            return super().__call__(images, *limits)

    video = write_video(tmp_path / 'v.avi', 6)
    written(video, tmp_path / 'out')
    before = (tmp_path / 'out/vis/v.mp4').read_bytes()
    with pytest.raises(UserError, match='enough'):
        written(video, tmp_path / 'out', Fails())
    assert (tmp_path / 'out/vis/v.mp4').read_bytes() == before
    assert [p.name for p in (tmp_path / 'out/vis').iterdir()] == ['v.mp4']


def test_labels_crops_and_lines(tmp_path):
    image = np.zeros((64, 128, 3), np.uint8)
    image[2:40, 1:30] = (10, 20, 200)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    lines = io.StringIO()
    written(tmp_path / 'a.png', tmp_path / 'out', labels=True, crops=True, lines=lines)
    assert (tmp_path / 'out/labels/a.txt').read_text() == '0 0.121094 0.328125 0.226562 0.593750\n'
    crop = cv2.imread(str(tmp_path / 'out/crops/thing/a_0.jpg'))
    assert crop.shape == (38, 29, 3)
    assert np.abs(crop.astype(int) - (10, 20, 200)).max() < 12
    row = json.loads(lines.getvalue())
    assert (row['image'], row['bboxes'], row['names']) == ('a.png', [[1, 2, 30, 40]], ['thing'])
    written(write_video(tmp_path / 'v.avi', 3), tmp_path / 'video', labels=True)
    assert sorted(p.name for p in (tmp_path / 'video/labels').iterdir()) == [f'v_{i:06d}.txt' for i in range(3)]


class FindsPose(Finds):
    """A detector that finds a box with two keypoints in bright images, and nothing in dark ones."""

    def __call__(self, images, *limits):
        found = []
        for image in images:
            count = int(image.any())
            points = np.tile(np.float32([[[10, 20], [30, 40]]]), (count, 1, 1))
            boxes, scores = np.tile(np.float32([[1, 2, 31, 42]]), (count, 1)), np.full(count, 0.9, np.float32)
            seen = np.tile(np.float32([[0.9, 0.1]]), (count, 1))
            labels = np.zeros(count, int)
            found.append(Detections(boxes, scores, labels, keypoints=points, keypoint_scores=seen))
        return found


def test_keypoints_are_labels_again_and_an_image_without_objects_has_none(tmp_path):
    from mmdyn.datasets import YOLOTextDataset

    (tmp_path / 'images').mkdir()
    for name, value in (('bright', 200), ('dark', 0)):
        cv2.imwrite(str(tmp_path / f'images/{name}.png'), np.full((64, 128, 3), value, np.uint8))
    written(tmp_path / 'images', tmp_path / 'out', FindsPose(), labels=True)
    assert json.loads((tmp_path / 'out/preds/dark.json').read_text())['keypoints'] == []
    assert json.loads((tmp_path / 'out/preds/bright.json').read_text())['keypoints'] == [[10, 20, 0.9, 30, 40, 0.1]]
    (tmp_path / 'out/labels').rename(tmp_path / 'labels')
    options = dict(images=str(tmp_path / 'images'), metainfo=dict(classes=('thing',)), keypoints=(2, 3))
    [bright, dark] = (YOLOTextDataset(**options, pipeline=[]).get_data_info(i)['instances'] for i in (0, 1))
    assert not dark
    np.testing.assert_allclose(bright[0]['keypoints'], [[10, 20, 2], [30, 40, 0]], atol=1e-3)


TURNED = np.float32([[60, 30, 40, 10, 0.5]])


class FindsTurned(Finds):
    """A detector that finds one oriented box in every image."""

    def __call__(self, images, *limits):
        box = around(corners_of(TURNED))
        return [Detections(box, np.float32([0.9]), np.array([0]), oriented_boxes=TURNED) for _ in images]


def test_oriented_boxes_are_written_as_labels_json_and_for_dota(tmp_path):
    cv2.imwrite(str(tmp_path / 'P1.png'), np.zeros((64, 128, 3), np.uint8))
    written(tmp_path / 'P1.png', tmp_path / 'out', FindsTurned(), labels=True, dota=True)
    corners = corners_of(TURNED)[0]
    label, *shares = (tmp_path / 'out/labels/P1.txt').read_text().split()
    assert label == '0'
    np.testing.assert_allclose(np.reshape(shares, (4, 2)).astype(float) * [128, 64], corners, atol=1e-3)
    row = json.loads((tmp_path / 'out/preds/P1.json').read_text())
    assert row['oriented_boxes'] == [[60, 30, 40, 10, 0.5]]
    name, score, *places = (tmp_path / 'out/dota/Task1_thing.txt').read_text().split()
    assert (name, score) == ('P1', '0.90000')
    np.testing.assert_allclose(np.reshape(places, (4, 2)).astype(float), corners, atol=0.01)
    drawn = cv2.imread(str(tmp_path / 'out/vis/P1.png'))
    middles = ((corners + np.roll(corners, 1, 0)) / 2).round().astype(int)
    assert drawn[middles[:, 1], middles[:, 0]].max(1).min() > 100
    assert not drawn[30, 60].any()
    with pytest.raises(UserError, match='--save-dota is for models of oriented boxes: omit it'):
        written(tmp_path / 'P1.png', tmp_path / 'other', dota=True)
    assert not [path for path in (tmp_path / 'other').rglob('*') if path.is_file()]


def test_lines_name_the_files_of_images(tmp_path):
    files = [tmp_path / folder / '1.png' for folder in ('a', 'b')]
    for file in files:
        file.parent.mkdir()
        cv2.imwrite(str(file), np.zeros((64, 64, 3), np.uint8))
    lines = io.StringIO()
    written(f'{tmp_path}/**/*.png', tmp_path / 'out', lines=lines)
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(row['image'], row['path']) for row in rows] == [('1.png', str(files[0])), ('1-2.png', str(files[1]))]


def test_labels_are_a_data_set_again(digits, tmp_path):
    """What is written as labels is read by ``--data`` as the same boxes."""
    from mmdyn.datasets import YOLOTextDataset

    model, images = load_model('digits', device='cpu'), tmp_path / 'images'
    media = model.open(digits / 'val')
    predictions = list(model.stream(media))
    write_results(media, iter(predictions), tmp_path, Outputs(labels=True))
    shutil.copytree(digits / 'val', images)
    data = YOLOTextDataset(images=str(images), metainfo=dict(classes=tuple(model.names)), pipeline=[])
    data.full_init()
    for i, prediction in enumerate(predictions):
        boxes = [instance['bbox'] for instance in data.get_data_info(i)['instances']]
        expected = prediction.pred_instances.bboxes.numpy()
        np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), expected, atol=1e-3)


def test_what_came_before_an_early_end_is_written(tmp_path):
    """Whatever the batch: the images before and after one that is broken, the frames of a video that is cut."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for name in 'abd':
        cv2.imwrite(str(folder / f'{name}.png'), np.zeros((32, 32, 3), np.uint8))
    (folder / 'c.png').write_text('no image')
    with pytest.raises(EndsEarlyError, match='1 of 4 images could not be read'):
        written(folder, tmp_path / 'out', batch=8)
    assert sorted(p.name for p in (tmp_path / 'out/vis').iterdir()) == ['a.png', 'b.png', 'd.png']
    whole = write_video(tmp_path / 'whole.avi', 12)
    (tmp_path / 'cut.avi').write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(EndsEarlyError, match=r'ends early: (\d+) frames were read') as caught:
        written(tmp_path / 'cut.avi', tmp_path / 'out', batch=8)
    lines = (tmp_path / 'out/preds/cut.jsonl').read_text().splitlines()
    assert f'ends early: {len(lines)} frames were read' in str(caught.value)
    assert len(list(open_media(str(tmp_path / 'out/vis/cut.mp4')))) == len(lines) > 0


def test_labels_of_the_data_set_are_not_overwritten(tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), np.zeros((32, 32, 3), np.uint8))
    (tmp_path / 'labels/a.txt').write_text('0 0.5 0.5 0.1 0.1')
    with pytest.raises(UserError, match='labels has the labels of these images: set another --out-dir'):
        written(tmp_path / 'images', tmp_path, labels=True)
    assert (tmp_path / 'labels/a.txt').read_text() == '0 0.5 0.5 0.1 0.1'
    assert not (tmp_path / 'vis').exists()


def test_frames_of_another_size_stay_in_the_video(tmp_path):
    from mmdyn.inference.results import VideoFile

    video = VideoFile(tmp_path / 'v.mp4', 10)
    for size in ((64, 96), (64, 96), (32, 48), (64, 96)):
        video.add(Model(Finds())(np.zeros((*size, 3), np.uint8)))
    video.publish()
    assert len(list(open_media(str(tmp_path / 'v.mp4')))) == 4


def test_a_window_needs_a_display(tmp_path, monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match='--show needs a display, but there is none'):
        written(write_video(tmp_path / 'v.avi', 3), tmp_path / 'out', show=True)


@pytest.mark.slow
def test_whoever_reads_the_lines_may_stop(tmp_path):
    video = write_video(tmp_path / 'v.avi', 400)
    command = f'{sys.executable} {DEMO} {video} digits --json-lines --out-dir {tmp_path}/out | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)['image'] == '000000'
    assert 'Traceback' not in done.stderr
    assert 0 < len(list(open_media(str(tmp_path / 'out/vis/v.mp4')))) < 400


def test_a_disk_that_fills_up(tmp_path):
    """What was written before is complete: the video, its JSON, and no temporary file."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip('mounts no small disk here')
    try:

        class FillsTheDisk(Finds):
            calls = 0

            def __call__(self, images, *limits):
                self.calls += 1
                if self.calls == 5:
                    (disk / 'other').write_bytes(bytes(14 * 2**20))
                return super().__call__(images, *limits)

        with pytest.raises(
            EndsEarlyError, match='is on a full disk: stopped after 4 images, whose results are written'
        ):
            written(write_video(tmp_path / 'v.avi', 9), disk / 'out', FillsTheDisk())
        assert len(list(open_media(str(disk / 'out/vis/v.mp4')))) == 4
        assert len([json.loads(line) for line in (disk / 'out/preds/v.jsonl').read_text().splitlines()]) == 4
        assert not list(disk.glob('**/*partial*'))
    finally:
        subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.slow
def test_images_with_a_checkpoint_and_with_its_export(call, dynamic, exported, digits, tmp_path):
    _, checkpoint = dynamic
    found = []
    for name, model in (('checkpoint', [ROOT / 'configs' / CONFIG, checkpoint]), ('export', [exported])):
        out = tmp_path / name
        options = ('--out-dir', out, '--score-thr', '0.001', '--batch-size', '3')
        done = call(DEMO, digits / 'val', *model, *options)
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(list((out / 'vis').iterdir())) == 8
        found.append([json.loads(p.read_text()) for p in sorted((out / 'preds').iterdir())])
    for ours, theirs in zip(*found, strict=True):
        assert len(ours['scores']) == len(theirs['scores'])
        np.testing.assert_allclose(ours['scores'], theirs['scores'], atol=1e-3)
        assert set(ours) == {'labels', 'scores', 'bboxes', 'names'}
        assert ours['names'] == [str(i) for i in ours['labels']]
    assert sum(len(rows['scores']) for rows in found[0]) > 0


@pytest.mark.slow
def test_a_video_and_one_that_ends_early(call, exported, tmp_path):
    whole = write_video(tmp_path / 'whole.avi', 12)
    cut = tmp_path / 'cut.avi'
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = call(DEMO, whole, exported, '--out-dir', tmp_path / 'out')
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(open_media(str(tmp_path / 'out/vis/whole.mp4')))) == 12
    assert len((tmp_path / 'out/preds/whole.jsonl').read_text().splitlines()) == 12
    done = call(DEMO, cut, exported, '--out-dir', tmp_path / 'out')
    assert done.returncode == 1
    assert 'ends early' in done.stderr
    assert 'Traceback' not in done.stderr
    kept = [json.loads(line) for line in (tmp_path / 'out/preds/cut.jsonl').read_text().splitlines()]
    assert 0 < len(kept) < 12
    assert len(list(open_media(str(tmp_path / 'out/vis/cut.mp4')))) == len(kept)
    assert not list(tmp_path.glob('out/**/*partial*'))


@pytest.mark.slow
def test_what_is_no_model_is_named(call, digits, tmp_path):
    for model, message in (
        ([tmp_path / 'none.onnx'], 'no exported file at'),
        (['a', 'b', 'c'], 'MODEL must be CONFIG CHECKPOINT, one file of weights'),
        (['digit'], 'or digits, and stands after the images; got digit after'),
    ):
        done = call(DEMO, digits / 'val', *model, '--out-dir', tmp_path / 'out')
        assert (done.returncode, message in done.stderr, 'Traceback' in done.stderr) == (1, True, False), done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_life_cycle(run, tmp_path):
    """Average precision from training to other runtimes and back, on a short run."""
    pytest.importorskip('onnxscript', reason='needs requirements/deploy.txt')
    arguments = ('--epochs', '4', '1', '--rounds', '3', '--out-dir', tmp_path, '--data-root', tmp_path / 'digits/')
    done = run(ROOT / 'demo/lifecycle.py', *arguments, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / 'results.json').read_text())
    ap = {name: figures['coco/bbox_mAP'] for name, figures in results['figures'].items()}
    assert ap['static, trained'] > 0.05
    assert ap['upcycled to dynamic'] == pytest.approx(ap['static, trained'], abs=0.001)
    for name in ('batch norms folded', 'ONNX Runtime', 'OpenVINO'):
        assert ap[name] == pytest.approx(ap['dynamic, fine-tuned'], abs=0.002)
    assert ap['collapsed, ONNX Runtime'] == pytest.approx(ap['collapsed to static'], abs=0.002)
    assert ap['collapsed to static'] > 0.8 * ap['dynamic, fine-tuned']
    assert results['difference'] <= 1e-5
    assert all(e['boxes'] <= 0.5 and e['scores'] <= 1e-3 for e in results['exports'].values())
    assert set(results['seconds']) == {f'{r}, batch {b}' for r in ('onnx', 'openvino') for b in (1, 8)}
    page = (tmp_path / 'lifecycle.md').read_text()
    pictures = [line.split('(')[1].rstrip(')') for line in page.splitlines() if line.startswith('![')]
    assert len(pictures) == len(ap) == 8
    for picture in pictures:
        assert cv2.imread(str(tmp_path / picture)).shape == (320, 5 * 320, 3)
