# A loss on the likeness of experts, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

model = dict(type='ExpertLossDetector', orthogonality_weight=0.1)
