"""What programs recorded, read from OTLP/JSON files: traces, tables, and both of them for other tools."""

from storescope.insight.model import InsightError
from storescope.insight.recording import Recording
from storescope.insight.selection import Query
from storescope.insight.source import Source

__all__ = ["InsightError", "Query", "Recording", "Source"]
