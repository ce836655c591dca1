"""Runtimes: opens an exported file with the runtime of its suffix.

The runtimes are imported where they are used: none is needed to import this module.
"""

import functools
import json
import platform
import zipfile
from pathlib import Path

import numpy as np
import torch

from mmdyn.errors import UserError

from .onnx_detector import OnnxDetector, RunFunction, output_names

METADATA = 'mmdyn'  # the entry of an OpenVINO or Core ML model, the extra file of a torch.export or LiteRT file
LITERT_INPUT = 'args_0'  # as its converter names it


@functools.cache
def openvino_core():
    """The single OpenVINO core of the process.

    A core installs a signal stack and restores the previous one when it is destroyed. If cores are not destroyed in the
    reverse order, the process is left with a freed stack and dies at its next signal.
    """
    import openvino

    return openvino.Core()


class NcnnDetector(OnnxDetector):
    """An :class:`OnnxDetector` with ncnn on a CPU in float32; ``path`` is the ``.param``."""

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        try:
            import ncnn
        except ImportError as e:
            raise ValueError('ncnn is not installed: pip install ncnn') from e
        path = Path(self.path)
        notes, weights = path.with_suffix('.json'), path.with_suffix('.bin')
        net = ncnn.Net()
        for option in ('packed', 'storage', 'arithmetic'):
            setattr(net.opt, f'use_fp16_{option}', False)
        net.opt.use_bf16_storage = False
        net.opt.num_threads = threads or net.opt.num_threads
        if not weights.is_file() or net.load_param(str(path)) or net.load_model(str(weights)):
            raise ValueError(f'{path} and {weights} do not load in ncnn')
        source, targets = net.input_names()[0], sorted(net.output_names())  # out0, out1, …

        def run(images: np.ndarray) -> list[np.ndarray]:
            extractor = net.create_extractor()
            extractor.input(source, ncnn.Mat(np.ascontiguousarray(images[0])))
            return [np.array(extractor.extract(name)[1])[None] for name in targets]

        return run, json.loads(notes.read_text()) if notes.is_file() else {}


class OpenVINODetector(OnnxDetector):
    """An :class:`OnnxDetector` with OpenVINO; ``path`` is the ``.xml``."""

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        try:
            core = openvino_core()
        except ImportError as e:
            raise ValueError('OpenVINO is not installed: pip install -r requirements/deploy.txt') from e
        options = {'INFERENCE_PRECISION_HINT': 'f32'} | ({'INFERENCE_NUM_THREADS': threads} if threads else {})
        try:
            model = core.read_model(self.path)
            compiled = core.compile_model(model, 'CPU', options)
        except RuntimeError as e:
            raise ValueError(f'{self.path} does not load in OpenVINO: {str(e).splitlines()[0]}') from e
        texts = json.loads(model.get_rt_info(METADATA).astype(str)) if model.has_rt_info(METADATA) else {}
        return lambda images: [np.array(y) for y in compiled(images).values()], texts


class TorchExportDetector(OnnxDetector):
    """An :class:`OnnxDetector` with PyTorch; ``path`` is a trusted ``.pt2``, because loading one can run code."""

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        extra = {METADATA: ''}
        module = torch.export.load(self.path, extra_files=extra).module()

        @torch.no_grad()
        def run(images: np.ndarray) -> list[np.ndarray]:
            return [y.numpy() for y in module(torch.from_numpy(images))]

        return run, json.loads(extra[METADATA])


class LiteRTDetector(OnnxDetector):
    """An :class:`OnnxDetector` with LiteRT on a CPU; ``path`` is the ``.tflite``."""

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as e:
            raise ValueError('LiteRT is not installed: pip install ai-edge-litert') from e
        try:
            runner = Interpreter(self.path, num_threads=threads).get_signature_runner()
        except (RuntimeError, ValueError) as e:
            raise ValueError(f'{self.path} does not load in LiteRT: {str(e).splitlines()[0]}') from e
        if list(runner.get_input_details()) != [LITERT_INPUT] or not zipfile.is_zipfile(self.path):
            return lambda _: [], {}
        with zipfile.ZipFile(self.path) as archive:
            names = archive.namelist()
            texts = json.loads(archive.read(f'{METADATA}.json')) if f'{METADATA}.json' in names else {}

        def run(images: np.ndarray) -> list[np.ndarray]:
            outputs = runner(**{LITERT_INPUT: images})
            return [outputs[name] for name in sorted(outputs)]  # output_0, output_1, …

        return run, texts


class CoreMLDetector(OnnxDetector):
    """An :class:`OnnxDetector` with Core ML, on macOS: not tested. ``path`` is the ``.mlpackage``."""

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        if not runs_here(self.path):
            raise ValueError(f'{self.path} runs on macOS only: copy it there, or export to another format')
        try:
            import coremltools as ct
        except ImportError as e:
            raise ValueError('Core ML needs coremltools: pip install coremltools') from e
        model = ct.models.MLModel(self.path)
        texts = json.loads(model.user_defined_metadata.get(METADATA, '{}'))

        def run(images: np.ndarray) -> list[np.ndarray]:
            outputs = model.predict({'images': images})
            return [outputs[name] for name in output_names(texts)]

        return run, texts


class EngineDetector(OnnxDetector):
    """An :class:`OnnxDetector` with TensorRT: not tested. ``path`` is the ``.engine``."""

    def _load(self, threads: int | None) -> tuple[RunFunction, dict[str, str]]:
        try:
            import tensorrt as trt
        except ImportError as e:
            raise ValueError('TensorRT is not installed: pip install tensorrt, on a machine with its GPU') from e
        content = Path(self.path).read_bytes()
        end = 4 + int.from_bytes(content[:4], 'little')
        try:
            texts = json.loads(content[4:end])
        except ValueError:
            return lambda _: [], {}
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(content[end:])
        if engine is None:
            raise ValueError(f'{self.path} does not load: TensorRT engines run on the kind of GPU that built them')
        context = engine.create_execution_context()

        def run(images: np.ndarray) -> list[np.ndarray]:
            values = {'images': torch.from_numpy(images).cuda()}
            names = output_names(texts)
            for name in names:
                values[name] = torch.empty(tuple(engine.get_tensor_shape(name)), device='cuda')
            for name, value in values.items():
                context.set_tensor_address(name, value.data_ptr())
            context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
            return [values[name].cpu().numpy() for name in names]

        return run, texts


DETECTORS = {
    '.onnx': OnnxDetector,
    '.xml': OpenVINODetector,
    '.param': NcnnDetector,
    '.tflite': LiteRTDetector,
    '.mlpackage': CoreMLDetector,
    '.engine': EngineDetector,
    '.pt2': TorchExportDetector,
}
RUNTIMES = tuple(suffix for suffix in DETECTORS if suffix != '.pt2')  # a .pt2 can run code when it is loaded


def runs_here(path: str | Path) -> bool:
    """Whether the runtime of an exported file exists for this system: Core ML's does on macOS only."""
    return Path(path).suffix != '.mlpackage' or platform.system() == 'Darwin'


def open_exported(path: str | Path, threads: int | None = None) -> OnnxDetector:
    """Open an exported file in its runtime.

    Args:
        path: A file of a suffix in ``RUNTIMES``, or a ``.pt2`` that was just written here.
        threads: Threads of the runtime; None takes its default.

    Raises:
        UserError: The file is missing, does not load, or was not exported by mmdyn.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f'no exported file at {path.absolute()}')
    if path.suffix not in DETECTORS:
        raise UserError(f'invalid file {path}: its suffix must be one of {", ".join(DETECTORS)}')
    try:
        return DETECTORS[path.suffix](path, threads)
    except ValueError as e:
        raise UserError(str(e)) from e
