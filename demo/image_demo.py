"""Detect objects in an image, a folder of images, a video or a camera; draws them and writes them as JSON.

The model is a config with a checkpoint, an exported file (.onnx, .xml of OpenVINO, .param of ncnn), or digits: a small
detector that comes with mmdyn. --demo runs it on four images that it makes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import WEIGHTS, add_cfg_options, add_weights_argument, config_of, run_tool, tool_parser

EXAMPLE = """  python demo/image_demo.py --demo
  python demo/image_demo.py data/digits/val configs/yolo11n_dynconv_digits.py CHECKPOINT
  python demo/image_demo.py street.mp4 model.onnx
  python demo/image_demo.py 0 model.onnx --show        # the first camera, until q or Ctrl-C
writes demo_output/vis/* and demo_output/preds/*.json"""
DEMO_IMAGES = 4


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('inputs', nargs='?', help='image, folder of images, URL, video, or number of a camera')
    parser.add_argument('model', nargs='*', metavar='MODEL', help='CONFIG CHECKPOINT, an exported file, or digits')
    parser.add_argument('--demo', action='store_true', help='make images of digits, and detect in them')
    add_weights_argument(parser)
    add_cfg_options(parser)
    parser.add_argument('--out-dir', type=Path, default=Path('demo_output'), help='output folder (demo_output)')
    parser.add_argument('--device', help='device of a checkpoint: cuda:0, cpu, … (a GPU if available)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='score threshold (0.3)')
    parser.add_argument('--batch-size', type=int, default=1, help='batch size of an exported file (1)')
    parser.add_argument('--show', action='store_true', help='show pictures in a window; q quits')
    return parser


def open_model(args):
    """Load the model from a config and a checkpoint, from an exported file, or by the name of a packaged detector."""
    from mmdyn.errors import UserError
    from mmdyn.inference import has_own_weights, load_model

    args.model += [args.weights] if args.weights else []
    if len(args.model) == 1 and Path(args.model[0]).suffix in WEIGHTS:
        args.config, args.checkpoint = None, args.model[0]
        return load_model(config_of(args), args.checkpoint, args.device)
    if len(args.model) == 1 and has_own_weights(args.model[0]):
        return load_model(args.model[0], device=args.device)
    if len(args.model) != 2:
        given = ' '.join(args.model) or 'nothing'
        raise UserError(
            'MODEL must be CONFIG CHECKPOINT, one file of weights (.pt, .pth, .safetensors) or of an export (.onnx, '
            f'.xml, .param), or digits, and stands after the images; got {given} after {args.inputs}'
        )
    args.config, checkpoint = args.model
    return load_model(config_of(args), checkpoint, args.device)


def make_images(args) -> None:
    """Make images of the validation set of the digits, and choose the packaged detector."""
    from mmdyn.datasets import make_digits
    from mmdyn.errors import UserError

    if args.inputs:
        raise UserError(f'--demo makes its own images: omit {args.inputs}, or omit --demo')
    folder = make_digits(args.out_dir / 'digits', splits={'train': 0, 'val': DEMO_IMAGES})
    args.inputs, args.model = str(folder / 'val'), ['digits']


def detect(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.inference.media import Media
    from mmdyn.inference.results import write_results

    if args.batch_size < 1:
        raise UserError(f'--batch-size must be at least 1, got {args.batch_size}')
    if args.demo:
        make_images(args)
    elif args.inputs is None:
        raise UserError('set an image, a folder, a URL, a video or a camera, and a MODEL; or --demo')
    model = open_model(args)
    media = Media(args.inputs)
    images, objects = write_results(media, model, args.out_dir, args.score_thr, args.batch_size, args.show)
    print(
        f'{objects} objects in {images} images: pictures are in {args.out_dir / "vis"}, '
        f'boxes as JSON in {args.out_dir / "preds"}.'
    )


if __name__ == '__main__':
    sys.exit(run_tool(detect, make_parser()))
