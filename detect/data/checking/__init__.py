"""The checker of data sets: what is faulty, and what is suspicious though no single file is."""

from detect.data.checking.checker import check_annotated
from detect.data.checking.finding import Box, CheckReport, Finding
