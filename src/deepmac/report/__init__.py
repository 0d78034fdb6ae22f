"""What a run directory holds, as one page; several runs on one page to compare them."""

from deepmac.report.command import command
from deepmac.report.page import write_page
from deepmac.report.run_folder import read_run

__all__ = ["command", "read_run", "write_page"]
