"""Cut large images with oriented boxes into tiles, which COCO-format files describe: DOTA, YOLO's corners, or COCO."""

import sys
from pathlib import Path

from _arguments import run_tool, tool_parser

EXAMPLE = """  python tools/tile_images.py data/DOTA data/dota_tiles
  python tools/train.py obb/yolo11n_dynconv_dota"""


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument(
        'data', type=Path, help="folder of DOTA (train and val, each with images and labelTxt), or another's data.yaml"
    )
    parser.add_argument('out', type=Path, help='output folder: train/, val/ and annotations/')
    parser.add_argument('--size', type=int, default=1024, metavar='PIXELS', help='height and width of a tile (1024)')
    parser.add_argument('--gap', type=int, default=200, metavar='PIXELS', help='pixels that neighbours share (200)')
    parser.add_argument(
        '--share',
        type=float,
        default=0.7,
        help='share of the area of an object that a tile must have; with less it is left out there (0.7)',
    )
    return parser


def tile(args) -> None:
    from mmdyn.datasets.data_source import find_data
    from mmdyn.datasets.tiling import write_tiles

    source = find_data(args.data, 'corners')
    print(source)
    for split, tiled in write_tiles(source, args.out, args.size, args.gap, args.share).items():
        print(f'{args.out / split}: {tiled}')


if __name__ == '__main__':
    sys.exit(run_tool(tile, make_parser()))
