"""When runs had which status, their calls and polls: as values, and in a file.

Public: `RunTimeline` with `TimedStatus`, `TimedCall` and `TimedRequest`; `TimelineFile`; `read_timelines`.
"""

from asyncruns.timeline.reading import read_timelines as read_timelines
from asyncruns.timeline.timeline_file import TimelineFile as TimelineFile
from asyncruns.timeline.values import RunTimeline as RunTimeline
from asyncruns.timeline.values import TimedCall as TimedCall
from asyncruns.timeline.values import TimedRequest as TimedRequest
from asyncruns.timeline.values import TimedStatus as TimedStatus
