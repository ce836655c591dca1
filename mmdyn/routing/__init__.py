"""Diagnostics of routing, during training and for a checkpoint."""

from .hook import RoutingHook
from .record import record_routing
from .statistics import RoutingStatistics, routing_statistics

__all__ = ['RoutingHook', 'RoutingStatistics', 'record_routing', 'routing_statistics']
