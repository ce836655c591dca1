"""Export a model to ONNX, OpenVINO, Core ML, LiteRT, ncnn, TensorRT or torch.export, and compare it with PyTorch.

The graph takes letterboxed images (B, 3, H, W), normalised as in the config (YOLO11: RGB from 0 to 1), and returns
boxes in their pixels (B, N, 4) with scores (B, N, classes), or with --nms the best detections (B, K, 5) with labels
(B, K). That of a classifier takes crops, and returns scores of the classes (B, classes). Class names, stride and sizes
are in the file. It needs: pip install -r requirements/deploy.txt, or for Core ML and LiteRT requirements/mobile.txt
"""

import argparse
import sys
from pathlib import Path

from _arguments import (
    EXPORTED,
    add_data_arguments,
    add_model_arguments,
    as_typed,
    config_of,
    overrides,
    run_tool,
    settle_model,
    tool_parser,
)

EXAMPLE = """  python tools/export.py configs/yolo11n_dynconv_digits.py CHECKPOINT --format onnx --nms
  python tools/test.py configs/yolo11n_dynconv_digits.py CHECKPOINT.onnx
  python mmdyn/inference/onnx_detector.py CHECKPOINT.onnx image.jpg     # without PyTorch"""


def batch(text: str) -> int | None:
    if text != 'dynamic' and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 'dynamic' or a number of images, got {text!r}")
    return None if text == 'dynamic' else int(text)


def make_parser():
    parser = tool_parser(__doc__, EXAMPLE)
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument('--format', choices=tuple(EXPORTED), default='onnx', help='output format (onnx)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='output file (in the folder of the checkpoint)')
    parser.add_argument(
        '--batch', type=batch, default=None, metavar='N', help="batch size: 'dynamic' (default), or a number"
    )
    parser.add_argument('--nms', action='store_true', help='put NMS into the graph')
    parser.add_argument(
        '--masks',
        action='store_true',
        help='with --nms: logits of masks, a quarter of the image wide, instead of the prototypes they are made of',
    )
    parser.add_argument('--half', action='store_true', help='float16; images and results stay float32')
    parser.add_argument(
        '--int8', action='store_true', help="quantise with the runtime's toolkit; prints AP before and after"
    )
    parser.add_argument(
        '--calibration', type=int, default=128, metavar='N', help='images of the training set for --int8 (128)'
    )
    parser.add_argument('--dynamic-size', action='store_true', help='dynamic height and width, multiples of 32')
    parser.add_argument('--opset', type=int, default=18, metavar='N', help='version of ONNX operators, 18 to 23 (18)')
    parser.add_argument(
        '--form',
        choices=('per_sample', 'mixed_outputs', 'mixed_inputs'),
        help='export form of dynamic convolutions: kernels mixed in the graph (per_sample, the default), or constant '
        'kernels with M times the work of the layer, for runtimes that cannot convolve with a computed kernel '
        '(mixed_outputs is the default for ncnn)',
    )
    parser.add_argument('--no-eval', action='store_true', help='skip AP before and after --int8')
    return parser


def export(args) -> None:
    from mmdyn.export.export import export_detector
    from mmdyn.export.options import ExportOptions
    from mmdyn.running.testing import task_of_config

    settle_model(args)
    cfg = config_of(args)
    options = ExportOptions(
        format=args.format,
        batch=args.batch,
        nms=args.nms,
        masks=args.masks,
        half=args.half,
        int8=args.int8,
        square=not args.dynamic_size,
        opset=args.opset,
        form=args.form,
        calibration=args.calibration,
    )
    out = args.out or Path(args.checkpoint).with_suffix(EXPORTED[args.format])
    done = export_detector(cfg, args.checkpoint, out, options)
    print(f'{done.path}: {done.size / 1e6:.1f} MB, {done.cost}')
    if not done.compared:
        print('not compared with PyTorch: its runtime does not exist for this system')
    elif task_of_config(cfg).name == 'classify':
        print(f'largest difference to PyTorch: scores {done.scores:.2g}')
    elif done.boxes == done.boxes:
        masks = f', masks {done.masks:.2g} of their largest number' if done.masks else ''
        print(f'largest difference to PyTorch: boxes {done.boxes:.2g} pixels, scores {done.scores:.2g}{masks}')
    else:
        print('no box of the photograph is above test_cfg.score_thr, also in PyTorch: no box was compared')
    if args.int8 and not args.no_eval and done.compared:
        from mmdyn.inference.evaluation import ap_table, evaluate

        rows = {
            'float32': evaluate(cfg, args.checkpoint, square=not args.dynamic_size),
            'int8': evaluate(cfg, done.path),
        }
        print(f'\n{ap_table(rows, task_of_config(cfg).name)}\n')
    if args.format != 'torch_export':
        if args.config:
            print(as_typed(f'test it: python tools/test.py {args.config} {done.path}{overrides(args)}'))
        print(as_typed(f'use it:  python demo/image_demo.py IMAGE {done.path}'))


if __name__ == '__main__':
    sys.exit(run_tool(export, make_parser()))
