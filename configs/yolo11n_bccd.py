# YOLO11-n, static, on BCCD: 364 microscope images of blood cells. To get it:
#   git clone https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset && python tools/voc_to_coco.py data/BCCD_Dataset/BCCD
_base_ = ['./_base_/default_runtime.py', './_base_/yolo11.py', './_base_/coco_320.py', './_base_/schedule_600e.py']

model = dict(bbox_head=dict(head_module=dict(num_classes=3)))
bccd = dict(data_root='data/BCCD_Dataset/BCCD/', data_prefix=dict(img='JPEGImages/'))
train_dataloader = dict(dataset=dict(bccd, ann_file='annotations/train.json'))
val_dataloader = dict(dataset=dict(bccd, ann_file='annotations/val.json'))
test_dataloader = dict(dataset=dict(bccd, ann_file='annotations/test.json'))
train_cfg = dict(max_epochs=60, val_interval=5)
