"""Detect objects in an image, a folder of images, a video or a camera; draws them and writes them as JSON.

The model is a config with a checkpoint, or an exported file (.onnx, .xml of OpenVINO, .param of ncnn).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import add_cfg_options, config_of, run_tool, tool_parser

EXAMPLE = """  python demo/image_demo.py data/digits/val configs/yolo11n_dynconv_digits.py CHECKPOINT
  python demo/image_demo.py street.mp4 model.onnx
  python demo/image_demo.py 0 model.onnx --show        # the first camera, until q or Ctrl-C
writes demo_output/vis/* and demo_output/preds/*.json"""
EXPORTED = ('.onnx', '.xml', '.param')


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('inputs', help='image, folder of images, URL, video, or number of a camera')
    parser.add_argument('model', nargs='+', metavar='MODEL', help='CONFIG CHECKPOINT, or an exported file')
    add_cfg_options(parser)
    parser.add_argument('--out-dir', type=Path, default=Path('demo_output'), help='output folder (demo_output)')
    parser.add_argument('--device', help='device of a checkpoint: cuda:0, cpu, … (a GPU if available)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='score threshold (0.3)')
    parser.add_argument('--batch-size', type=int, default=1, help='batch size of an exported file (1)')
    parser.add_argument('--show', action='store_true', help='show pictures in a window; q quits')
    return parser


def open_model(args):
    """Load the model from a config and a checkpoint, or from an exported file."""
    from mmdyn.errors import UserError
    from mmdyn.inference import load_model

    if len(args.model) == 1 and Path(args.model[0]).suffix in EXPORTED:
        return load_model(args.model[0])
    if len(args.model) != 2:
        raise UserError(
            f'MODEL must be CONFIG CHECKPOINT, or one exported file ({", ".join(EXPORTED)}); got {" ".join(args.model)}'
        )
    args.config, checkpoint = args.model
    return load_model(config_of(args), checkpoint, args.device)


def detect(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.inference.media import Media
    from mmdyn.inference.results import write_results

    if args.batch_size < 1:
        raise UserError(f'--batch-size must be at least 1, got {args.batch_size}')
    media = Media(args.inputs)
    model = open_model(args)
    count = write_results(media, model, args.out_dir, args.score_thr, args.batch_size, args.show)
    print(f'{count} images: pictures are in {args.out_dir / "vis"}, boxes as JSON in {args.out_dir / "preds"}.')


if __name__ == '__main__':
    sys.exit(run_tool(detect, make_parser()))
