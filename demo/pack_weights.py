"""Put the weights of a trained checkpoint into the package as float16, and test them; `make weights` runs this."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import run_tool, tool_parser

EXAMPLE = '  python demo/pack_weights.py yolo11n_digits work_dirs/weights/yolo11n_digits/epoch_18.pth'


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('config', help='name of the config, which becomes the name of the file')
    parser.add_argument('checkpoint', help='checkpoint of a training with this config')
    return parser


def pack_weights(args) -> None:
    from mmdyn.inference import evaluate
    from mmdyn.inference.packaged import pack
    from mmdyn.running.config_file import load_config

    cfg = load_config(args.config)
    path = pack(args.checkpoint, args.config)
    ap = {file: evaluate(cfg, file)['coco/bbox_mAP'] for file in (args.checkpoint, path)}
    for file, value in ap.items():
        print(f'{file}: {Path(file).stat().st_size / 1e6:.1f} MB, box AP {value:.3f}')


if __name__ == '__main__':
    sys.exit(run_tool(pack_weights, make_parser()))
