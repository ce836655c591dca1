"""Diagnostics of routing: what dynamic convolutions do with the images, in training and of a checkpoint."""

from .hook import RoutingHook
from .record import record_routing
from .statistics import RoutingStatistics, routing_statistics

__all__ = ['RoutingHook', 'RoutingStatistics', 'record_routing', 'routing_statistics']
