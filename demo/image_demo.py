"""Detect objects in an image or a folder of images: draws them, and writes them as JSON."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from _arguments import add_config_arguments, config_of, run_tool, tool_parser

EXAMPLE = """  python demo/image_demo.py data/digits/val configs/yolo11n_dynconv_digits.py CHECKPOINT
writes demo_output/vis/*.jpg and demo_output/preds/*.json"""


def parse_args():
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument('inputs', help='image, folder of images, or URL')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out-dir', default='demo_output', help='where to write (demo_output)')
    parser.add_argument('--device', default=None, help='cuda:0, cpu, … (a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score of a drawn box (0.3)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time (1)')
    return parser.parse_args()


def detect(args) -> None:
    import mmcv
    from mmdet.apis import DetInferencer

    from mmdyn.engine.checkpoint import refuse_other_architecture
    from mmdyn.engine.launch import check_checkpoint, config_errors
    from mmdyn.errors import UserError

    path = Path(args.inputs)
    if '://' not in args.inputs:
        if not path.exists():
            raise UserError(f'no image or folder at {path.absolute()}')
        files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f'no image in {path.absolute()} (looked for {" ".join(SUFFIXES)})')
        for file in files:
            if mmcv.imread(file) is None:
                raise UserError(f'{file} is not an image that OpenCV reads')
    checkpoint = check_checkpoint(args.checkpoint)
    cfg = config_of(args)
    with config_errors():
        inferencer = DetInferencer(cfg, args.checkpoint, args.device, scope=cfg.default_scope, palette='random')
    if checkpoint is not None:
        refuse_other_architecture(inferencer.model, checkpoint, args.checkpoint)
    inferencer(
        args.inputs,
        batch_size=args.batch_size,
        out_dir=args.out_dir,
        pred_score_thr=args.score_thr,
        no_save_pred=False,
    )
    print(f'Pictures and JSON are in {args.out_dir}.')


SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.tif', '.tiff', '.webp')


if __name__ == '__main__':
    sys.exit(run_tool(detect, parse_args()))
