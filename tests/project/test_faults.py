"""tests/mutations.py: its faults can still be made."""

import pytest

from mutations import FAULTS, ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "src").exists(), reason="sources are not part of an installed package")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.path)
def test_the_line_to_change_is_there_once(fault):
    assert (ROOT / fault.path).read_text().count(fault.right) == 1
