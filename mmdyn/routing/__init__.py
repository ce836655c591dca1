"""Diagnostics of routing, during training and for a checkpoint."""

from mmdyn.layers import record_routing

from .hook import RoutingHook
from .statistics import RoutingStatistics, routing_statistics

__all__ = ['RoutingHook', 'RoutingStatistics', 'record_routing', 'routing_statistics']
