"""Reports: what a detector has learned, by class and by kind of error, on a page, in tables and in JSON."""

from .hook import ReportHook
from .report import Report, make_report, write_report

__all__ = ['Report', 'ReportHook', 'make_report', 'write_report']
