"""EHRs and archives that behave as their vendors document, played by one engine from data, to rehearse against.

`behaviours/*.toml` say what each takes, refuses and answers; `faults` add what goes wrong on a bad day.
"""

from adapter.sandbox.vendors.behaviour import Behaviour, behaviour_names, read_behaviour
from adapter.sandbox.vendors.engine import Fault, Vendor
from adapter.sandbox.vendors.servers import RunningVendor, running_vendor

__all__ = ["Behaviour", "Fault", "RunningVendor", "Vendor", "behaviour_names", "read_behaviour", "running_vendor"]
