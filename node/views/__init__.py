"""Read models: what the pages and the command line's lists show, as frozen values read in a few queries.

A view is read inside `Database.reading()` and holds no session, so it can be shown after the transaction has ended.
Patient attributes are in `StudyPage` alone.
"""

from node.views.deliveries import DeliveryList, DeliveryView, delivery_list
from node.views.drift import DriftPage, drift_page
from node.views.overview import Overview, overview
from node.views.rows import StudyRow
from node.views.study import StudyPage, study_page
from node.views.worklist import STATUSES, Filter, WorkList, work_list

__all__ = [
    "STATUSES",
    "DeliveryList",
    "DeliveryView",
    "DriftPage",
    "Filter",
    "Overview",
    "StudyPage",
    "StudyRow",
    "WorkList",
    "delivery_list",
    "drift_page",
    "overview",
    "study_page",
    "work_list",
]
