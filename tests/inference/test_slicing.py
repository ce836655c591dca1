"""Tiles: objects that are too small in the whole image are found in them, once, where they are."""

import cv2
import numpy as np
import pytest

pytest.importorskip('supervision', reason='needs requirements/track.txt')

from mmdyn.datasets.oriented import oriented_box
from mmdyn.errors import UserError
from mmdyn.inference.load import Model
from mmdyn.inference.onnx_detector import Detections, around, corners_of

SIDE = 100  # the detector sees no more pixels than this


class FindsSquares:
    """Finds bright squares of an image that is resized as a detector would: those that stay larger than 4 pixels."""

    names = ('square',)
    channels, to_float32, skeleton = 3, False, ()

    def check_limits(self, limits):
        pass

    def __call__(self, images, score, *_):
        return [self.detect(image) for image in images]

    def detect(self, image):
        scale = min(1, SIDE / max(image.shape))
        small = cv2.resize(image[..., 0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _, _, stats, _ = cv2.connectedComponentsWithStats((small > 200).astype(np.uint8))
        boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:] if min(w, h) > 4]
        boxes = np.array(boxes, np.float32).reshape(-1, 4) / scale
        return Detections(boxes, np.full(len(boxes), 0.9, np.float32), np.zeros(len(boxes), np.int64))


@pytest.fixture
def image():
    """Three squares of 10 pixels, one of them where tiles meet, and a large one."""
    image = np.zeros((300, 400, 3), np.uint8)
    for x, y, side in ((20, 30, 10), (95, 100, 10), (330, 250, 10), (150, 20, 200)):
        image[y : y + side, x : x + side] = 255
    return image


def test_tiles_find_small_objects_once(image):
    whole = Model(FindsSquares())
    assert whole(image).pred_instances.bboxes.tolist() == [[152, 20, 348, 220]]  # in steps of four pixels
    found = whole.sliced(SIDE, overlap=0.2)(image).pred_instances.bboxes.numpy()
    small = found[(found[:, 2] - found[:, 0]) < 12]
    expected = [[20, 30, 30, 40], [95, 100, 105, 110], [330, 250, 340, 260]]
    assert sorted(small.tolist()) == sorted(expected)
    assert sorted(found.tolist())[2:3] == [[150, 20, 350, 220]]  # one box, of the whole image and of all tiles
    assert len(found) == 4
    assert len(whole.sliced(SIDE)(image, max_detections=2).pred_instances) == 2


class FindsBars(FindsSquares):
    """The same for bars in any direction: the smallest rectangle around each; a bar that a tile cuts is surer there."""

    def detect(self, image):
        scale = min(1, SIDE / max(image.shape))
        small = cv2.resize(image[..., 0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        contours, _ = cv2.findContours((small > 200).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        turned = np.array([oriented_box(each.reshape(-1, 2)) for each in contours if len(each) > 30])
        turned = turned.reshape(-1, 5) * [*[1 / scale] * 4, 1]
        scores = np.where(turned[:, 2] > 45, 0.9, 0.5).astype(np.float32)
        labels = np.zeros(len(turned), np.int64)
        return Detections(around(corners_of(turned)), scores, labels, oriented_boxes=turned)


def test_oriented_boxes_of_tiles_are_found_once():
    image = np.zeros((180, 300, 3), np.uint8)
    bars = [(60, 60, 50, 6, 0.6), (150, 100, 50, 6, -0.4), (250, 140, 50, 6, 1.2)]
    for x, y, width, height, angle in bars:
        corners = cv2.boxPoints(((x, y), (width, height), np.degrees(angle)))
        cv2.fillPoly(image, [np.round(corners).astype(int)], (255, 255, 255))
    found = Model(FindsBars()).sliced(SIDE, overlap=0.6)(image).pred_instances
    assert len(found) == 3
    np.testing.assert_allclose(found.bboxes, around(corners_of(found.oriented_boxes.numpy())), atol=1e-3)
    boxes = found.oriented_boxes.numpy()
    np.testing.assert_allclose(boxes[boxes[:, 0].argsort()], bars, atol=2, rtol=0.05)


def test_an_empty_image_has_no_object():
    assert len(Model(FindsSquares()).sliced(SIDE)(np.zeros((300, 300, 3), np.uint8)).pred_instances) == 0


def test_invalid_tiles_are_named():
    with pytest.raises(UserError, match='invalid size of tiles 0: set 32 pixels or more'):
        Model(FindsSquares()).sliced(0)
    with pytest.raises(UserError, match='invalid overlap of tiles 1: set a share from 0 to less than 1'):
        Model(FindsSquares()).sliced(640, 1.0)
