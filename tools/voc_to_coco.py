"""Convert Pascal VOC annotations to COCO: writes ROOT/annotations/SET.json for every image set."""

import sys
from pathlib import Path

from _arguments import run_tool, tool_parser

EXAMPLE = """  git clone https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset
  python tools/voc_to_coco.py data/BCCD_Dataset/BCCD
  python tools/train.py configs/yolo11n_dynconv_bccd.py"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('root', type=Path, help='folder with Annotations, ImageSets/Main and JPEGImages')
    parser.add_argument(
        '--sets',
        nargs='+',
        default=['train', 'val', 'test'],
        metavar='SET',
        help='image sets to convert (train val test)',
    )
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='class names in order (those of the first set, sorted)'
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for the JSON files (ROOT/annotations)')
    return parser


def convert(args) -> None:
    from mmdyn.datasets.voc_to_coco import convert_voc
    from mmdyn.files import write_json

    out = args.out or args.root / 'annotations'
    classes = args.classes
    conversions = {}
    for name in args.sets:
        conversions[name] = convert_voc(args.root, name, classes)
        classes = conversions[name].classes
    for name, conversion in conversions.items():
        write_json(out / f'{name}.json', conversion.content())
        print(f'{out / name}.json: {conversion}')


if __name__ == '__main__':
    sys.exit(run_tool(convert, make_parser()))
