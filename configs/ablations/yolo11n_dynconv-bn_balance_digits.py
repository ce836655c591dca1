# A loss on the unequal use of experts, on the digits.
_base_ = '../yolo11n_dynconv-bn_digits.py'

model = dict(type='ExpertLossDetector', balance_weight=0.1)
