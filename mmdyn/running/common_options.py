"""What people set most: the data, the image size, epochs, batch, workers and learning rate, in one config."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdyn.datasets.data_source import DataSource, find_data
from mmdyn.datasets.image_cache import Kind
from mmdyn.datasets.pixels import bits_and_channels
from mmdyn.errors import UserError

from .dataset_images import build_quietly
from .image_channels import loading_steps, set_channels
from .image_size import innermost_dataset, set_crop_size, set_image_size
from .testing import task_of_config
from .training_options import set_class_count

LOADERS = {'train_dataloader': ('train',), 'val_dataloader': ('val', 'test'), 'test_dataloader': ('test', 'val')}
# Arguments of a data set that stay.
KEPT = (
    *('pipeline', 'test_mode', 'filter_cfg', 'batch_shapes_cfg', 'cache', 'indices'),
    *('check_images', 'on_bad_images', 'on_bad_boxes', 'outlines', 'corners'),
)


def set_common_options(
    cfg: Config,
    data: str | Path | None = None,
    imgsz: tuple[int, int] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    workers: int | None = None,
    lr: float | None = None,
    cache: Kind | None = None,
) -> None:
    """Change a config; None leaves as it is.

    Args:
        cfg: Config, changed in place.
        data: A ``data.yaml``, or a folder of COCO or VOC: where training, validation and test images come from.
        imgsz: Height and width of the images in pixels.
        epochs: Epochs of the training.
        batch: Images of a batch in every process.
        workers: Processes that load images, for every process that trains.
        lr: Learning rate.
        cache: Where decoded and resized images of training and validation are kept: ``'ram'`` or ``'disk'``.

    Raises:
        UserError: A value is invalid, or the data is.
    """
    for name, value, least in (('--epochs', epochs, 1), ('--batch', batch, 1), ('--workers', workers, 0)):
        if value is not None and value < least:
            raise UserError(f'invalid {name} {value}: set it to {least} or more')
    if lr is not None and not 0 < lr < float('inf'):
        raise UserError(f'invalid --lr {lr:g}: set it to a number above 0')
    if data is not None:
        outlines = cfg.get('train_dataloader') and innermost_dataset(cfg.train_dataloader).get('outlines')
        source = find_data(data, task_of_config(cfg).labels or ('outlines' if outlines else None))
        print(source)
        use_data(cfg, source)
    if imgsz is not None and task_of_config(cfg).name == 'classify':
        if imgsz[0] != imgsz[1]:
            raise UserError(f'invalid --imgsz {imgsz[0]}x{imgsz[1]}: images of a classifier are square, set one number')
        set_crop_size(cfg, imgsz[0])
    elif imgsz is not None:
        set_image_size(cfg, *imgsz)
    if epochs is not None:
        cfg.train_cfg.max_epochs = epochs
        cfg.train_cfg.val_interval = min(cfg.train_cfg.get('val_interval', 1), max(1, epochs // 10))
    for loader in LOADERS:
        if cfg.get(loader) and batch is not None:
            cfg[loader].batch_size = batch
        if cfg.get(loader) and workers is not None:
            cfg[loader].num_workers = workers
            cfg[loader].persistent_workers = workers > 0
    if cache is not None:
        for step in loading_steps(cfg):
            step['type'] = 'mmyolo.LoadImage'
        for loader in ('train_dataloader', 'val_dataloader'):
            if cfg.get(loader):
                innermost_dataset(cfg[loader])['cache'] = cache
    if lr is not None:
        cfg.optim_wrapper.optimizer.lr = lr


def use_data(cfg: Config, source: DataSource) -> None:
    """Train, validate and test on a data set; the model gets its class count and its input channels from it.

    Args:
        cfg: Config, changed in place.
        source: The data set.

    Raises:
        UserError: It has no images to validate with, or images without the channels that it states.
    """
    if 'train' not in source.splits or not {'val', 'test'} & source.splits.keys():
        missing = (
            'validation images: name them val or valid'
            if 'train' in source.splits
            else 'training images: name them train'
        )
        raise UserError(f'{source.path} has no {missing}')
    for loader, splits in LOADERS.items():
        split = next((source.splits[s] for s in splits if s in source.splits), None)
        if cfg.get(loader) and split is not None:
            kept = innermost_dataset(cfg[loader])
            cfg[loader].dataset = {key: kept[key] for key in KEPT if key in kept} | split
    for evaluator in ('val_evaluator', 'test_evaluator'):
        if isinstance(cfg.get(evaluator), dict) and 'ann_file' in cfg[evaluator]:
            cfg[evaluator].pop('ann_file')
            cfg[evaluator].type = 'mmyolo.DatasetCocoMetric'  # of the annotations that the data set has read
    set_class_count(cfg, len(source.classes))
    if source.format == 'folders':
        return  # of images that are read in colours
    if task_of_config(cfg).labels == 'keypoints':
        _use_keypoints(cfg, source)
    _use_channels(cfg, source)


def _use_keypoints(cfg: Config, source: DataSource) -> None:
    """Predict the keypoints that the data has.

    Raises:
        UserError: It has none.
    """
    arguments = source.splits['train']
    if 'keypoints' not in arguments:
        raise UserError(
            f"{source.path} has no keypoints, which a model of poses needs: a data.yaml says how many by 'kpt_shape', "
            "COCO's annotations have 'keypoints'; or take a config of detection"
        )
    head, (count, _) = cfg.model.bbox_head, arguments['keypoints']
    same = head.head_module.get('keypoint_shape', (17, 3))[0] == count
    head.head_module.keypoint_shape = arguments['keypoints']
    head.sigmas = arguments.get('metainfo', {}).get('sigmas')
    skeleton = source.skeleton
    if skeleton and not all(1 <= end <= count for pair in skeleton for end in pair):
        print(f'{source.path}: its skeleton is not drawn, as its numbers are not those of keypoints, 1 to {count}')
        skeleton = None
    if skeleton or not same:
        head.skeleton = skeleton


def _use_channels(cfg: Config, source: DataSource) -> None:
    """Take the channels that the data states, and whether to keep 16 bits from its first image."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    dataset = build_quietly(innermost_dataset(cfg.train_dataloader), pipeline=[], check_images=False)
    first = dataset.get_data_info(0)['img_path']
    bits, channels = bits_and_channels(first)
    if channels != source.channels and source.channels not in (1, 3):  # any image can be read as grey or in colours
        raise UserError(f"{source.path}: 'channels' is {source.channels}, but {first} has {channels}")
    if source.channels != 3 or bits > 8:
        set_channels(cfg, source.channels, to_float32=bits > 8)
