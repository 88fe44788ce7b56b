"""Thousands of runs in one process, under one budget of requests.

Public: `CreateRequest`, `Fleet`, `Statistics`, `Watch`. The modules, from what callers hold down to the arithmetic:

fleet        `Fleet`: what callers use
watch_handle `Watch`: what a caller holds of one run
hub          what these two share: the task of the fleet, its runner and its outcomes
runner       sends what the schedule plans, and receives the answers
roster       the runs that the fleet knows, by their refs
records      writes the watches of the fleet into a journal
creates      creates the runs of `Fleet.run`; create_request is the type of its arguments
permits      sends what the schedule does not plan within the same budget: creates, and the fetching of messages
member       one run: executes the commands of its lifecycle; `member_host` is what it needs of the fleet
listener     passes the events of a run on to one watch of it
outcomes     delivers the outcomes; `newest` bounds what waits for a reader
schedule     which run is polled next: the one whose poll is worth most
announcements  whether webhooks announce the ends of runs, so that polls may be rare
budget       how many requests may be sent now: the rate, and the number in flight
pace         how fast to send, learned from the server's refusals; `pace_trial` judges whether a cut helped
explain      the sentence of `Watch.explain()`
settings     the options of the fleet, and of single watches that override them
group_watch  watches a group of batches in a fleet of its own, and creates those that are held back
statistics   the state of the fleet in numbers
"""

from __future__ import annotations

from asyncruns.fleet.create_request import CreateRequest
from asyncruns.fleet.fleet import Fleet
from asyncruns.fleet.statistics import Statistics
from asyncruns.fleet.watch_handle import Watch

__all__ = ["CreateRequest", "Fleet", "Statistics", "Watch"]
