# One router for all dynamic convolutions of a C3k2 instead of one for each, on the digits.
_base_ = './yolo11n_c3k2_dynconv_digits.py'

shared = dict(shared_router=True)
model = dict(backbone=dict(block_cfg=shared), neck=dict(block_cfg=shared))
