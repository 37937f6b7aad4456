"""SGLang's stand-ins come before SGLang."""

from __future__ import annotations

import stand_ins

stand_ins.install()
