"""`storescope doctor`: what is examined, and how it is told."""

from storescope.cli.doctor.examination import Diagnosis, examine
from storescope.cli.doctor.screen import render

__all__ = ["Diagnosis", "examine", "render"]
