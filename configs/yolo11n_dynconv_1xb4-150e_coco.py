# The small-machine recipe that the design was published with: one device, batch 4, 150 epochs, SGD, no AMP, no workers.
_base_ = './yolo11n_dynconv_coco.py'

train_cfg = dict(max_epochs=150)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
