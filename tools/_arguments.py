"""Code shared by the tools. It imports nothing heavy, so that ``--help`` answers at once."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CLONE = (ROOT / 'mmdyn').is_dir()
if CLONE:  # which may not be installed
    sys.path.insert(0, str(ROOT))


class Command(NamedTuple):
    """A command of ``mmdyn``: the file that it runs, and what it does."""

    file: str
    purpose: str


COMMANDS = {
    'train': Command('tools/train.py', 'train a detector, on any data set in one flag'),
    'test': Command('tools/test.py', 'average precision of a checkpoint or of an exported file'),
    'detect': Command('demo/image_demo.py', 'draw boxes in images, videos, streams and cameras'),
    'track': Command('tools/track.py', 'follow objects through a video'),
    'export': Command('tools/export.py', 'write ONNX, OpenVINO, Core ML, LiteRT, ncnn, TensorRT or torch.export'),
    'benchmark': Command('tools/benchmark.py', 'a detector in every format: size, time, AP'),
    'convert': Command('tools/convert_ultralytics.py', "the original's weights, both ways"),
    'upcycle': Command('tools/upcycle.py', 'a dynamic detector of a static one, with the same outputs'),
    'collapse': Command('tools/collapse.py', 'a static detector of a dynamic one'),
    'ablate': Command('tools/ablate.py', 'compare configs fairly, with seeds and intervals'),
    'routing': Command('tools/analyze_routing.py', 'how the dynamic layers of a checkpoint route'),
    'flops': Command('tools/get_flops.py', 'parameters and multiply-adds of a config'),
    'tile': Command('tools/tile_images.py', 'cut large images with oriented boxes into tiles'),
    'browse': Command('tools/browse_dataset.py', 'the data set as training sees it'),
    'configs': Command('tools/list_configs.py', 'the configs of the package'),
    'completion': Command('tools/completion.py', 'completion for a shell'),
    'env': Command('tools/environment.py', 'versions and devices, for a bug report'),
}


def overview() -> str:
    """What ``mmdyn --help`` shows."""
    lines = [f'  {name:<11} {command.purpose}' for name, command in COMMANDS.items()]
    return '\n'.join([
        'usage: mmdyn COMMAND …\n',
        *lines,
        '\nexample:\n  mmdyn train yolo11n_dynconv_coco --data my/data.yaml --imgsz 320 --epochs 100',
        'mmdyn COMMAND --help says what a command takes.',
    ])  # fmt: skip


typed: str | None = None  # the command, where mmdyn runs the tool


def as_typed(text: str) -> str:
    """A text whose commands are those of ``mmdyn``, where that runs the tool, and where there is no folder of tools."""
    for name, command in COMMANDS.items() if typed or not CLONE else ():
        text = text.replace(f'python {command.file}', f'mmdyn {name}')
    return text


def tool_parser(doc: str, example: str) -> argparse.ArgumentParser:
    """A parser that shows an example.

    Args:
        doc: Description of the tool.
        example: Example commands.
    """
    return argparse.ArgumentParser(
        f'mmdyn {typed}' if typed else None,
        description=doc,
        epilog=f'example:\n{as_typed(example)}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the config and ``--cfg-options``."""
    parser.add_argument('config', help='config file, or name of a config')
    add_cfg_options(parser)


WEIGHTS = ('.pth', '.pt', '.safetensors')
EXPORTED = {  # as mmdyn.checkpoints.EXPORTED, which would import PyTorch
    'onnx': '.onnx',
    'openvino': '.xml',
    'torch_export': '.pt2',
    'ncnn': '.param',
    'coreml': '.mlpackage',
    'litert': '.tflite',
    'engine': '.engine',
}


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: str = 'checkpoint file') -> None:
    """Add the config, its checkpoint, ``--weights`` for both or for the second, and ``--cfg-options``."""
    parser.add_argument('config', nargs='?', help='config file, or name of a config; --weights alone needs none')
    parser.add_argument('checkpoint', nargs='?', help=checkpoint)
    add_weights_argument(parser)
    add_cfg_options(parser)


def add_weights_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--weights``."""
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help="weights of any origin: the original's .pt, .safetensors, or a checkpoint; static ones are upcycled for a "
        'dynamic config with batch norm (-bn)',
    )


def settle_model(args: argparse.Namespace) -> None:
    """Let ``--weights`` stand for the checkpoint; a file of weights where the config was expected is that, too."""
    from mmdyn.errors import UserError

    if args.checkpoint is None and args.config and Path(args.config).suffix in WEIGHTS:
        args.config, args.checkpoint = None, args.config
    if args.weights and args.checkpoint:
        raise UserError(f'--weights {args.weights} and the checkpoint {args.checkpoint} exclude each other: omit one')
    args.checkpoint = args.checkpoint or args.weights
    if args.config and not args.checkpoint:
        from mmdyn.inference.packaged import packaged

        args.config, args.checkpoint = packaged(args.config) or (args.config, None)
    if not args.checkpoint:
        raise UserError('set CONFIG CHECKPOINT, or --weights FILE')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override the config: a.b=1 c="[1,2]" d.0.e=x (no spaces within a value)',
    )


def add_data_arguments(parser: argparse._ActionsContainer) -> None:
    """The data set and the size of its images."""
    parser.add_argument(
        '--data',
        metavar='PATH',
        help="a data.yaml of YOLO's, or a folder of COCO, Pascal VOC or DOTA, or for a classifier train/CLASS/ and "
        'val/CLASS/: data and classes (those of the config)',
    )
    parser.add_argument(
        '--imgsz', type=image_size, metavar='N|HxW', help='image size in pixels, rounded up to multiples of 32'
    )


def add_loader_arguments(parser: argparse._ActionsContainer) -> None:
    """How images are loaded."""
    parser.add_argument(
        '--batch',
        type=int,
        metavar='N',
        help='images of a batch in every process; in training -1: as many as fit into the GPU',
    )
    parser.add_argument('--workers', type=int, metavar='N', help='processes that load images, for every process')


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """The model of ``open_model``, how images are taken from a source, and where the model runs."""
    parser.add_argument(
        'model', nargs='*', metavar='MODEL', help='CONFIG CHECKPOINT, a file of weights or of an export, or digits'
    )
    add_weights_argument(parser)
    add_cfg_options(parser)
    parser.add_argument('--device', help='device of a checkpoint: cuda:0, cpu, … (a GPU if available)')
    parser.add_argument('--imgsz', type=image_size, metavar='N|HxW', help="image size in pixels (the model's)")
    parser.add_argument('--batch', '--batch-size', type=int, default=1, metavar='N', help='images at a time (1)')
    parser.add_argument('--vid-stride', type=int, default=1, metavar='N', help='take every Nth frame of a video (1)')


def add_detection_arguments(parser: argparse.ArgumentParser, score: float | None) -> argparse._ArgumentGroup:
    """Which detections are kept, with a score threshold, or None for the model's; the group is returned."""
    default = '0.25; 0 for a classifier' if score is None else f'{score:g}'
    kept = parser.add_argument_group('what is kept')
    kept.add_argument(
        '--conf', '--score-thr', type=float, default=score, metavar='X', help=f'score threshold, 0 to 1 ({default})'
    )
    kept.add_argument('--iou', type=float, metavar='X', help="overlap above which NMS drops a box (the model's)")
    kept.add_argument(
        '--max-det', type=int, metavar='N', help="most detections or classes of an image (the model's; 5)"
    )
    kept.add_argument('--classes', nargs='+', metavar='NAME', help='these classes only, by name or number')
    kept.add_argument('--agnostic-nms', action='store_true', help='NMS among all classes, not within each')
    return kept


def add_output_arguments(parser: argparse.ArgumentParser, folder: str) -> argparse._ArgumentGroup:
    """What is written of predictions, by default to a folder; the group is returned."""
    output = parser.add_argument_group('output')
    output.add_argument('--out-dir', type=Path, default=Path(folder), help=f'output folder ({folder})')
    output.add_argument('--json-lines', action='store_true', help='print a line of JSON for every image as it comes')
    output.add_argument('--show', action='store_true', help='show pictures in a window; q quits')
    return output


def limits_of(args: argparse.Namespace) -> dict:
    """The arguments of ``add_detection_arguments`` for :class:`mmdyn.inference.Model`."""
    return dict(
        score=args.conf,
        iou=args.iou,
        max_detections=args.max_det,
        classes=args.classes,
        agnostic=args.agnostic_nms,
    )


def open_model(args: argparse.Namespace):
    """Load the model from a config and a checkpoint, from one file, or by the name of a packaged detector."""
    from mmdyn.errors import UserError
    from mmdyn.inference import has_own_weights, load_model
    from mmdyn.inference.packaged import packaged

    args.model += [args.weights] if args.weights else []
    if len(args.model) == 1 and Path(args.model[0]).suffix in WEIGHTS:
        args.config, args.checkpoint = None, args.model[0]
        return load_model(config_of(args), args.checkpoint, args.device)
    own = packaged(args.model[0]) if len(args.model) == 1 else None
    if own is not None:
        args.config, args.checkpoint = own
        return load_model(config_of(args), args.checkpoint, args.device)
    if len(args.model) == 1 and has_own_weights(args.model[0]):
        if args.imgsz:
            raise UserError(
                f'{args.model[0]} has its image size since it was exported: omit --imgsz, or export it again'
            )
        return load_model(args.model[0], device=args.device)
    if len(args.model) == 1 and Path(args.model[0]).suffix == EXPORTED['torch_export']:
        raise UserError(f'{args.model[0]} can run code when it is loaded, so it is not: export to another format')
    if len(args.model) != 2:
        given = ' '.join(args.model) or 'nothing'
        raise UserError(
            f'MODEL must be CONFIG CHECKPOINT, one file of weights ({", ".join(WEIGHTS)}) or of an export '
            f'({", ".join(s for s in EXPORTED.values() if s != ".pt2")}), or digits, and stands after the images; got '
            f'{given} after {args.inputs}'
        )
    args.config, checkpoint = args.model
    return load_model(config_of(args), checkpoint, args.device)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained on, from what, for how long."""
    data = parser.add_argument_group('data')
    add_data_arguments(data)
    data.add_argument('--classes', nargs='+', metavar='NAME', help='train on these classes only, by name or number')
    data.add_argument('--single-cls', action='store_true', help='take all objects as of one class')
    add_loader_arguments(data)
    data.add_argument(
        '--cache', choices=('ram', 'disk'), help='keep decoded and resized images: in memory, or in a file for all runs'
    )
    start = parser.add_argument_group('start')
    add_weights_argument(start)
    start.add_argument(
        '--pretrained',
        metavar='FILE',
        help='the backbone only, of weights of any origin and any task; a static one is upcycled as well',
    )
    start.add_argument(
        '--freeze',
        type=layers,
        metavar='N|backbone',
        help='keep the first N layers of YOLO11, or the backbone, with their batch norms',
    )
    schedule = parser.add_argument_group('schedule')
    schedule.add_argument('--epochs', type=int, metavar='N', help='epochs of the training')
    schedule.add_argument('--patience', type=int, metavar='N', help='stop after N epochs without a better AP')
    schedule.add_argument('--lr', type=float, metavar='X', help='learning rate')
    schedule.add_argument(
        '--multi-scale', action='store_true', help='resize every batch to half to one and a half of the image size'
    )


def layers(text: str) -> int | str:
    """A number of layers, or ``backbone``."""
    return int(text) if text.lstrip('-').isdecimal() else text


def image_size(text: str) -> tuple[int, int]:
    """Height and width: ``640``, or ``384x640``."""
    sides = text.lower().split('x')
    if not all(side.lstrip('-').isdecimal() for side in sides) or len(sides) > 2:
        raise argparse.ArgumentTypeError(f'a number of pixels or HEIGHTxWIDTH, got {text!r}')
    height, *width = map(int, sides)
    return height, (width or [height])[0]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the work dir, the device and the launcher."""
    parser.add_argument('--name', help='name of the run: its folder is work_dirs/NAME')
    parser.add_argument('--device', metavar='cpu|cuda:N', help='device of the run (the first GPU if available)')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (work_dirs/NAME OF CONFIG)')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none', help='job launcher')
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes it
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def options_of(given: list[str] | None, flag: str = '--cfg-options') -> dict | None:
    """KEY=VALUE pairs as dotted keys and values.

    Args:
        given: The pairs.
        flag: The flag that they follow, for the message.

    Raises:
        UserError: One is not such a pair.
    """
    from mmengine.config import DictAction

    from mmdyn.errors import UserError

    pairs = given or []
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise UserError(f'{flag} takes KEY=VALUE, got {wrong[0]!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='*', action=DictAction)
    return parser.parse_args(pairs).options if pairs else None


def overrides(args: argparse.Namespace) -> str:
    """``--data``, ``--imgsz`` and ``--cfg-options`` as typed, after a space, for a suggested command."""
    words = ['--data', args.data] if getattr(args, 'data', None) else []
    words += ['--imgsz', 'x'.join(map(str, args.imgsz))] if getattr(args, 'imgsz', None) else []
    words += ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    return ''.join(f' {shlex.quote(word)}' for word in words)


def config_of(args: argparse.Namespace):
    """The config that the arguments describe; without a config, that of the weights."""
    from mmdyn.running.config_file import load_config

    if hasattr(args, 'launcher') and args.device:
        check_device(args.device, args.launcher)
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    config = args.config
    if config is None:
        from mmdyn.convert import weights_config

        config = weights_config(args.checkpoint)
    folder = args.work_dir if getattr(args, 'work_dir', None) else None
    if getattr(args, 'name', None):
        folder = os.path.join(folder or 'work_dirs', args.name)
    cfg = load_config(config, options_of(args.cfg_options), folder, getattr(args, 'launcher', 'none'))
    set_options(cfg, args)
    return cfg


def set_options(cfg, args: argparse.Namespace) -> None:
    """Change a config as the arguments of ``add_data_arguments`` and of training say."""
    from mmdyn.running import training_options
    from mmdyn.running.common_options import set_common_options

    training = hasattr(args, 'epochs')
    if training and args.weights:
        training_options.start_from_weights(cfg, args.weights)
        cfg.merge_from_dict(options_of(args.cfg_options) or {})
    if training and getattr(args, 'pretrained', None):
        training_options.start_from_backbone(cfg, args.pretrained)
    keys = ['data', 'imgsz', 'epochs', 'workers', 'lr', 'cache']
    keys += ['batch'] if hasattr(args, 'workers') else []  # that of an export is another
    values = {key: getattr(args, key, None) for key in keys}
    if training and args.batch == -1:
        values['batch'] = None  # measured at the end
    if any(value is not None for value in values.values()):
        set_common_options(cfg, **values)
        interval = (options_of(args.cfg_options) or {}).get('train_cfg.val_interval')
        if interval is not None:  # which --epochs would shorten
            cfg.train_cfg.val_interval = interval
    if training:
        training_options.set_training_options(
            cfg, args.classes, args.single_cls, args.freeze, args.patience, args.multi_scale
        )


def _gpu(device: str) -> str:
    """Number of a GPU in the name of a device."""
    return device.removeprefix('cuda:').replace('cuda', '0')


def show_one_device(device: str) -> None:
    """Let PyTorch see one device only, as MMEngine takes the first GPU that it sees; before PyTorch is imported."""
    visible, number = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(','), _gpu(device)
    if number.isdecimal() and int(number) < len(visible):  # it counts those that a scheduler has given
        number = visible[int(number)] or number
    os.environ['CUDA_VISIBLE_DEVICES'] = '' if device == 'cpu' else number


def check_device(device: str, launcher: str) -> None:
    """Refuse a device that is none, or is not here."""
    import torch

    from mmdyn.errors import UserError

    if device != 'cpu' and not _gpu(device).isdecimal():
        raise UserError(
            f'invalid --device {device}: set cpu, cuda or cuda:0; for several GPUs: tools/dist_train.sh CONFIG GPUS'
        )
    if device != 'cpu' and launcher != 'none':
        raise UserError(f'--device {device}: the launcher {launcher} gives each process its GPU; omit it')
    if device != 'cpu' and not torch.cuda.is_available():
        raise UserError(f'--device {device}: PyTorch finds no such GPU here; `mmdyn env` shows what there is')


def run_tool(command: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> int:
    """Run a tool's command; an error that a user can correct becomes one message and exit code 1."""
    args = parser.parse_intermixed_args()  # options may stand between images and models
    if getattr(args, 'launcher', '') == 'none' and getattr(args, 'device', None):
        show_one_device(args.device)
    from mmdyn.running.messages import exit_code

    return exit_code(lambda: command(args))
