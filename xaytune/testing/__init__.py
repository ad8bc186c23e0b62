"""Contract suites: a class of one's own that inherits one is tested as the built-in ones are.

::

    from xaytune.testing import SchedulerContract

    class TestMyScheduler(SchedulerContract):
        def make_scheduler(self):
            return MyScheduler(keep=3)

They need pytest, and neither Ray nor torch; that of whatever trains, in `xaytune.testing.training`, needs torch.
"""

from xaytune.testing.methods import SamplerContract, SchedulerContract, SearchMethodContract
from xaytune.testing.trackers import TrackerContract

__all__ = ["SamplerContract", "SchedulerContract", "SearchMethodContract", "TrackerContract"]
