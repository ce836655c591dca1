# Any MM model becomes dynamic by one conv_cfg: mmdet's own RetinaNet with dynamic convolutions in its FPN.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdyn'], allow_failed_imports=False)

model = dict(neck=dict(conv_cfg=dict(type='mmdyn.DynamicConv', num_experts=4)))
