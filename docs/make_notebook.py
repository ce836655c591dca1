"""Write and run docs/notebook.ipynb: training on your own data, routing, export.

    pip install nbclient ipykernel && python docs/make_notebook.py

The cells are below; change them here. It takes some minutes on 2 cores.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TARGET = Path(__file__).with_name('notebook.ipynb')
CELLS = [
    new_markdown_cell("""# Train on your own data, look at routing, export

This notebook makes a small data set in the layout of a Roboflow export, fine-tunes YOLO11-n with DynamicConv on it,
looks at what its experts do, and writes files for other runtimes. It needs `requirements/deploy.txt`. With your own
export, leave out the first cell and set `data` to its folder."""),
    new_code_cell("""import json
from pathlib import Path

import mmdyn
from mmdyn.datasets import make_digits

made = make_digits('made', splits={'train': 240, 'val': 60})
data = Path('export')  # train/ and valid/, each with images and _annotations.coco.json
for split, name in (('train', 'train'), ('val', 'valid')):
    (data / name).mkdir(parents=True, exist_ok=True)
    for image in (made / split).iterdir():
        image.rename(data / name / image.name)
    (made / 'annotations' / f'{split}.json').rename(data / name / '_annotations.coco.json')
sorted(p.name for p in data.iterdir())"""),
    new_markdown_cell("""## Train

The start is a static detector, here one that comes with mmdyn; for photographs take `yolo11n.pt`. The `-bn` config has
four experts in place of each strided convolution, and computes the same at first. The classes come from the data. The
log is long: this shows its end."""),
    new_code_cell("""from mmdyn.inference.packaged import packaged

_, start = packaged('yolo11n_digits')
!mmdyn train yolo11n_dynconv-bn_coco --data {data} --weights {start} --imgsz 320 --epochs 4 --batch 16 --workers 2 \\
    --seed 0 --name run 2>&1 | tail -24"""),
    new_markdown_cell("""\
What it has learned, by class, from the report. The page beside it has curves, errors and the worst
images."""),
    new_code_cell("""report = max(Path('work_dirs/run').glob('*/report/report.json'))
for row in json.loads(report.read_text())['classes'][:4]:
    print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
print(report.with_name('report.html'))"""),
    new_markdown_cell("""## Routing

Each image has its own weights of the experts. Here is one, with those of the six dynamic layers beside it."""),
    new_code_cell("""import cv2
from IPython.display import Image

checkpoint = max(Path('work_dirs/run').glob('best*.pth'))
model = mmdyn.load_model(checkpoint)
image = sorted((data / 'valid').glob('*.jpg'))[4]
prediction = model(image, score=0.3, routing=True)
Image(cv2.imencode('.png', prediction.draw())[1].tobytes())"""),
    new_markdown_cell("""\
How far images differ in their weights, over the validation set (*sample spread*). After four epochs
from upcycled weights, whose experts begin alike, it is small."""),
    new_code_cell(
        """!mmdyn routing --weights {checkpoint} --data {data} --imgsz 320 --out-dir routing 2>&1 | grep "^|\""""
    ),
    new_markdown_cell("""## Export

Every format is compared with PyTorch, timed and tested."""),
    new_code_cell("""\
!mmdyn benchmark --weights {checkpoint} --data {data} --imgsz 320 --formats onnx openvino torch_export \\
    --repeats 10 2>&1 | grep "^|\""""),
    new_code_cell("""exported = mmdyn.load_model(f'benchmark_output/onnx/{checkpoint.stem}.onnx')
found = exported(image, score=0.3)
print(len(found.pred_instances), 'objects with ONNX Runtime,', len(prediction.pred_instances), 'with PyTorch')"""),
]


def make(target: Path) -> None:
    """Run the cells in a temporary folder, and write them with their outputs."""
    notebook = new_notebook(cells=CELLS, metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')))
    for number, cell in enumerate(notebook.cells):
        cell['id'] = f'cell-{number}'  # those of nbformat are random
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources=dict(metadata=dict(path=folder))).execute()
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)  # times of day
        if 'outputs' in cell:  # not the warnings of a bare environment
            cell['outputs'] = [output for output in cell['outputs'] if output.get('name') != 'stderr']
        for output in cell.get('outputs', ()):
            if 'text' in output:
                output['text'] = output['text'].replace(str(Path(__file__).parents[1]), 'mmdyn').replace(folder, '.')
    nbformat.write(notebook, target)
    print(f'Wrote {target}')


if __name__ == '__main__':
    make(TARGET)
