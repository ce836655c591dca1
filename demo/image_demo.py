"""Detect objects in images, videos, streams and cameras, or classify; draws them and writes them as JSON.

The model is a config with a checkpoint, weights of any origin, an exported file (.onnx, .xml of OpenVINO, .param of
ncnn), or digits: a small detector that comes with mmdyn. --demo runs it on four images that it makes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import (
    add_detection_arguments,
    add_output_arguments,
    add_source_arguments,
    limits_of,
    open_model,
    run_tool,
    tool_parser,
)

EXAMPLE = """  python demo/image_demo.py --demo
  python demo/image_demo.py data/digits/val configs/yolo11n_dynconv_digits.py CHECKPOINT
  python demo/image_demo.py street.mp4 model.onnx --conf 0.4 --classes car bus --vid-stride 2
  python demo/image_demo.py 'photos/**/*.jpg' yolo11n.pt --save-txt --save-crop
  python demo/image_demo.py 0 model.onnx --show        # the first camera, until q or Ctrl-C
writes demo_output/vis and demo_output/preds"""
DEMO_IMAGES = 4


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument(
        'inputs',
        nargs='?',
        metavar='SOURCE',
        help="image, folder, pattern ('photos/*.jpg'), list (.txt, or - for standard input), video, URL, RTSP stream, "
        'or number of a camera',
    )
    parser.add_argument('--demo', action='store_true', help='make images of digits, and detect in them')
    add_source_arguments(parser)
    kept = add_detection_arguments(parser, score=None)
    kept.add_argument('--slice', type=int, metavar='N', help='also look at tiles of N pixels, for small objects')
    kept.add_argument('--overlap', type=float, default=0.2, metavar='X', help='share that tiles overlap by (0.2)')
    output = add_output_arguments(parser, 'demo_output')
    output.add_argument('--save-txt', action='store_true', help="also write labels as YOLO's text files")
    output.add_argument('--save-dota', action='store_true', help="also write oriented boxes as DOTA's result files")
    output.add_argument('--save-crop', action='store_true', help='also write a picture of every object')
    output.add_argument('--show-routing', action='store_true', help='draw the weights of the experts beside an image')
    return parser


def make_images(args) -> None:
    """Make images of the validation set of the digits, and choose the packaged detector."""
    from mmdyn.datasets import make_digits
    from mmdyn.errors import UserError

    if args.inputs:
        raise UserError(f'--demo makes its own images: omit {args.inputs}, or omit --demo')
    folder = make_digits(args.out_dir / 'digits', splits={'train': 0, 'val': DEMO_IMAGES})
    args.inputs, args.model = str(folder / 'val'), ['digits']


def named(predictions):
    """The predictions of a classifier, whose classes are printed as they come."""
    from tqdm import tqdm

    from mmdyn.inference.onnx_detector import captions

    for prediction in predictions:
        best = ', '.join(captions(prediction.detections(), prediction.names))
        tqdm.write(f'{prediction.name}: {best or "no class of this score"}')
        yield prediction


def detect(args) -> None:
    from mmdyn.errors import UserError
    from mmdyn.inference.results import Outputs, write_results

    if args.demo:
        make_images(args)
    elif args.inputs is None:
        raise UserError('set an image, a folder, a URL, a video or a camera, and a MODEL; or --demo')
    model = open_model(args)
    if args.slice is not None:
        model = model.sliced(args.slice, args.overlap)
    media = model.open(args.inputs, args.vid_stride)
    predictions = model.stream(media, batch=args.batch, routing=args.show_routing, **limits_of(args))
    refused = [name for name in ('save_crop', 'save_dota') if getattr(args, name)]
    if model.classifies and refused:
        flag = refused[0].replace('_', '-')
        raise UserError(f'--{flag} is for models that find objects, and a classifier finds none: omit it')
    if model.classifies and not args.json_lines:
        predictions = named(predictions)
    lines = sys.stdout if args.json_lines else None
    outputs = Outputs(args.save_txt, args.save_dota, args.save_crop, lines, show=args.show)
    images, objects = write_results(media, predictions, args.out_dir, outputs)
    found, what = ('Classes of', 'scores') if model.classifies else (f'{objects} objects in', 'boxes')
    print(
        f'{found} {images} image{"" if images == 1 else "s"}: pictures are in {args.out_dir / "vis"}, '
        f'{what} as JSON in {args.out_dir / "preds"}.',
        file=sys.stderr if args.json_lines else sys.stdout,
    )


if __name__ == '__main__':
    sys.exit(run_tool(detect, make_parser()))
