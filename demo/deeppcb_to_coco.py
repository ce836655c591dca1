"""Make the data of the study of routing: DeepPCB (MIT), circuit boards with six kinds of defect, in COCO's format.

The source is https://github.com/tangsanli5201/DeepPCB. Its folder PCBData lists the images of training in trainval.txt
and those of the test, which are val.json here, in test.txt: the name of an image, whose file ends in _test.jpg, and a
text file of boxes, one a line: left, top, right, bottom, kind from 1 to 6.
"""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import run_tool, tool_parser

EXAMPLE = '  python demo/deeppcb_to_coco.py DeepPCB/PCBData data/deeppcb'
KINDS = ('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole')
SPLITS = {'train': 'trainval.txt', 'val': 'test.txt'}


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('source', type=Path, metavar='FOLDER', help='folder PCBData of the source')
    parser.add_argument('out', type=Path, metavar='OUT', help='output folder: images/, train.json and val.json')
    return parser


def read_boxes(path: Path) -> list[dict]:
    """The boxes of an image as COCO has them."""
    boxes = []
    for line in path.read_text().splitlines():
        left, top, right, bottom, kind = (int(word) for word in line.replace(',', ' ').split())
        width, height = right - left, bottom - top
        boxes.append(dict(bbox=[left, top, width, height], area=width * height, category_id=kind, iscrowd=0))
    return boxes


def convert_split(source: Path, listed: str, out: Path) -> dict:
    """Copy the images of a list, and return their annotations."""
    import cv2
    from tqdm import tqdm

    images: list[dict] = []
    annotations: list[dict] = []
    for line in tqdm((source / listed).read_text().splitlines(), desc=listed, disable=None):
        image, boxes = (source / word for word in line.split())
        file, name = image.with_name(f'{image.stem}_test.jpg'), f'{image.stem}.jpg'
        height, width = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape
        shutil.copyfile(file, out / 'images' / name)
        images.append(dict(id=len(images) + 1, file_name=name, width=width, height=height))
        for box in read_boxes(boxes):
            annotations.append(dict(id=len(annotations) + 1, image_id=len(images), **box))
    categories = [dict(id=number, name=name) for number, name in enumerate(KINDS, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def run(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.files import write_text

    missing = [name for name in SPLITS.values() if not (args.source / name).is_file()]
    if missing:
        raise UserError(f'{args.source} has no {missing[0]}: give the folder PCBData of the source')
    (args.out / 'images').mkdir(parents=True, exist_ok=True)
    for split, listed in SPLITS.items():
        content = convert_split(args.source, listed, args.out)
        write_text(args.out / f'{split}.json', json.dumps(content))
        print(f'{split}: {len(content["images"])} images, {len(content["annotations"])} boxes')


if __name__ == '__main__':
    sys.exit(run_tool(run, make_parser()))
