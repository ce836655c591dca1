# YOLO11-n, static, on DeepPCB: 1,500 grey images of circuit boards with six kinds of defect. demo/deeppcb_to_coco.py makes it.
_base_ = ['./_base_/default_runtime.py', './_base_/yolo11.py', './_base_/coco_320.py', './_base_/schedule_600e.py']

model = dict(bbox_head=dict(head_module=dict(num_classes=6)))
pcb = dict(
    data_root='data/deeppcb/',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole')))
train_dataloader = dict(dataset=dict(pcb, ann_file='train.json'))
val_dataloader = dict(dataset=dict(pcb, ann_file='val.json'))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=30, val_interval=2)
